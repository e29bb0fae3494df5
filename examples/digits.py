"""Writes scikit-learn's handwritten digits as JPEG TFRecords in the layout of TF-Slim's ImageNet.

    python examples/digits.py OUT_DIR [--shards N]

1,797 images of 8x8 pixels, enlarged to 32x32; every fifth image of each digit is held out for
validation. The files are the same bytes each time. Needs scikit-learn and Pillow, not TensorFlow.
"""

import argparse
import io
import os
import sys
from typing import Dict, Tuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from densenet_keras.data import tfrecord  # noqa: E402  (this script runs from a checkout, uninstalled)

SIDE = 32  # pixels
MAX_INTENSITY = 16.0  # of scikit-learn's images
HELD_OUT_EVERY = 5
JPEG_QUALITY = 95
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FIRST_LABEL = 1  # TF-Slim's ImageNet labels start at 1


def encode(pixels: np.ndarray) -> bytes:
    """An 8x8 float image as the bytes of a 32x32 RGB JPEG."""
    grey = Image.fromarray(np.uint8(np.rint(pixels * (255.0 / MAX_INTENSITY))))
    buffer = io.BytesIO()
    enlarged = grey.resize((SIDE, SIDE), Image.BICUBIC).convert("RGB")
    enlarged.save(buffer, "jpeg", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def example(pixels: np.ndarray, digit: int, filename: str) -> bytes:
    """A serialised tf.train.Example with the keys of TF-Slim's ImageNet records."""
    return tfrecord.encode_example(
        {
            "image/height": SIDE,
            "image/width": SIDE,
            "image/colorspace": "RGB",
            "image/channels": 3,
            "image/class/label": int(digit) + FIRST_LABEL,
            "image/class/text": NAMES[digit],
            "image/format": "JPEG",
            "image/filename": filename,
            "image/encoded": encode(pixels),
        }
    )


def split_numbers(digits: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Numbers of the training and of the validation images, the share of each digit kept."""
    held_out = np.zeros(len(digits), bool)
    for digit in np.unique(digits):
        held_out[np.flatnonzero(digits == digit)[HELD_OUT_EVERY // 2 :: HELD_OUT_EVERY]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def write(out_dir: str, shards: int) -> Dict[str, int]:
    """Writes both splits; returns the number of images in each."""
    data = load_digits()
    os.makedirs(out_dir, exist_ok=True)
    splits = dict(zip(("train", "validation"), split_numbers(data.target)))
    for name, numbers in splits.items():
        for shard in range(shards):
            path = os.path.join(out_dir, f"{name}-{shard:05d}-of-{shards:05d}")
            with open(path, "wb") as file:
                for number in numbers[shard::shards]:
                    payload = example(data.images[number], data.target[number], f"digit_{number:04d}.jpg")
                    file.write(tfrecord.frame(payload))
    return {name: len(numbers) for name, numbers in splits.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", help="folder to write to")
    parser.add_argument("--shards", type=int, default=4, help="files of each split (default: 4)")
    options = parser.parse_args()
    if not 1 <= options.shards <= 300:
        parser.error(f"--shards {options.shards} is outside 1 to 300")
    for name, images in write(options.out_dir, options.shards).items():
        print(f"{options.out_dir}: {images} {name} images in {options.shards} shards")


if __name__ == "__main__":
    main()
