"""The networks by their names, in the manner of tf.keras.applications.

Each maps images ``[batch, height, width, 3] float32``, normalised, to logits ``[batch, classes]``. Without
`input_shape` (height, width, 3) the images are 224 pixels high and wide, those of DenseNetCifar and
DenseNetTiny 32. The other options are those of `densenet.densenet`.
"""

from __future__ import annotations

from typing import Any, Dict, Optional

import tensorflow as tf

from densenet_keras.network.densenet import Shape, densenet
from densenet_keras.network.variants import VARIANTS, Variant, cifar_variant

# What builders of tf.keras.applications take and these do not.
_ADVICE = {
    "include_top": "the classifier is always there; the feature maps before it are "
    "model.get_layer('final_relu').output, and finetune.py makes a new classifier",
    "weights": "networks are built without trained weights, so leave it out; "
    "densenet_keras.load_model(RUN) gives those of a run",
    "input_tensor": "give the tensor as inputs=, normalised float32 [batch, height, width, 3]",
    "pooling": "the pooled features are model.get_layer('global_pool').output",
    "classifier_activation": "the output is logits; apply tf.nn.softmax to them",
}


def _named(
    variant: Variant, classes: int, input_shape: Optional[Shape], options: Dict[str, Any]
) -> tf.keras.Model:
    """`densenet` for the builders below.

    Raises:
        TypeError: an argument of tf.keras.applications that has another name or place here.
    """
    for name in options:
        if name in _ADVICE:
            raise TypeError(f"{name}={options[name]!r} is not an argument of {variant.name}: {_ADVICE[name]}")
    return densenet(variant, classes=classes, input_shape=input_shape, **options)


def DenseNet121(classes: int = 1000, input_shape: Optional[Shape] = None, **options: Any) -> tf.keras.Model:
    """DenseNet-121 without trained weights: images to logits. Options: those of `densenet`."""
    return _named(VARIANTS["densenet121"], classes, input_shape, options)


def DenseNet161(classes: int = 1000, input_shape: Optional[Shape] = None, **options: Any) -> tf.keras.Model:
    """DenseNet-161 without trained weights: images to logits. Options: those of `densenet`."""
    return _named(VARIANTS["densenet161"], classes, input_shape, options)


def DenseNet169(classes: int = 1000, input_shape: Optional[Shape] = None, **options: Any) -> tf.keras.Model:
    """DenseNet-169 without trained weights: images to logits. Options: those of `densenet`."""
    return _named(VARIANTS["densenet169"], classes, input_shape, options)


def DenseNet201(classes: int = 1000, input_shape: Optional[Shape] = None, **options: Any) -> tf.keras.Model:
    """DenseNet-201 without trained weights: images to logits. Options: those of `densenet`."""
    return _named(VARIANTS["densenet201"], classes, input_shape, options)


def DenseNet264(classes: int = 1000, input_shape: Optional[Shape] = None, **options: Any) -> tf.keras.Model:
    """DenseNet-264 without trained weights: images to logits. Options: those of `densenet`."""
    return _named(VARIANTS["densenet264"], classes, input_shape, options)


def DenseNetCifar(
    depth: int = 100,
    growth_rate: int = 12,
    classes: int = 10,
    input_shape: Optional[Shape] = None,
    **options: Any,
) -> tf.keras.Model:
    """DenseNet-BC for small images: images to logits. Options: those of `densenet`.

    Raises:
        ValueError: depth is not 6n + 4 (see `variants.cifar_variant`), or see `densenet`.
    """
    variant = cifar_variant(depth, growth_rate)
    return _named(variant, classes, input_shape, options)


def DenseNetTiny(classes: int = 10, input_shape: Optional[Shape] = None, **options: Any) -> tf.keras.Model:
    """Three blocks of two layers behind the ImageNet stem, for trials: images to logits.

    Options: those of `densenet`.
    """
    return _named(VARIANTS["densenet_tiny"], classes, input_shape, options)
