"""What networks expect of their pictures, as plain data that needs no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Tuple


@dataclass(frozen=True)
class Preprocessing:
    """How pixels in 0..255 become a network's input: (channels - mean) / deviation.

    Attributes:
        channels: the order of the channels, "RGB" or "BGR"; mean and deviation have the same.
        mean: taken off each channel.
        deviation: that each channel is then divided by.
        meaning: in a few words, for help.
    """

    channels: str
    mean: Tuple[float, float, float]
    deviation: Tuple[float, float, float]
    meaning: str


# Mean and standard deviation of ImageNet's training images, as the authors' Torch code has them.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)  # the ImageNet mean of the Caffe model zoo

# The names are those of the modes of keras.applications' preprocess_input. Weights of DenseNets with each of
# these are in circulation: torch (torchvision, timm, MindCV, Keras, the original), caffe_scaled (the authors'
# Caffe models and conversions of them; the prototxt scales by 0.017), tf (TF-Slim).
PREPROCESSINGS: Dict[str, Preprocessing] = {
    "torch": Preprocessing(
        "RGB",
        (255 * _MEAN[0], 255 * _MEAN[1], 255 * _MEAN[2]),
        (255 * _DEVIATION[0], 255 * _DEVIATION[1], 255 * _DEVIATION[2]),
        "RGB less ImageNet's mean, in standard deviations",
    ),
    "tf": Preprocessing("RGB", (127.5,) * 3, (127.5,) * 3, "RGB from -1 to 1"),
    "caffe": Preprocessing("BGR", _CAFFE_MEAN_BGR, (1.0,) * 3, "BGR less ImageNet's mean"),
    "caffe_scaled": Preprocessing("BGR", _CAFFE_MEAN_BGR, (1 / 0.017,) * 3, "the same times 0.017"),
}
TORCH = "torch"
