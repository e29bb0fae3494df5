"""Our variables under the names of Keras Applications and of Torch; no TensorFlow.

The other direction is `network.weights.names`.
"""

from __future__ import annotations

import re
from typing import Dict, Mapping

import numpy as np

KERAS_EPSILON = 1.001e-5  # of every batch normalisation in keras.applications.densenet
TORCH_EPSILON = 1e-5  # the default of torch.nn.BatchNorm2d, which torchvision and timm leave

_KERAS_PARTS = {"bn1": "0_bn", "conv1": "1_conv", "bn2": "1_bn", "conv2": "2_conv"}
_KERAS_FIXED = {"stem_conv": "conv1/conv", "stem_bn": "conv1/bn", "final_bn": "bn", "linear": "fc1000"}
_TORCH_PARTS = {"bn1": "norm1", "conv1": "conv1", "bn2": "norm2", "conv2": "conv2"}
_TORCH_FIXED = {
    "stem_conv": "features.conv0",
    "stem_bn": "features.norm0",
    "final_bn": "features.norm5",
    "linear": "classifier",
}
_TORCH_VALUES = {
    "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var",
    "kernel": "weight", "bias": "bias",
}  # fmt: skip


def keras_layer(layer: str) -> str:
    """What keras.applications calls our layer, such as block1/layer2/bn1 -> conv2_block2_0_bn."""
    if layer in _KERAS_FIXED:
        return _KERAS_FIXED[layer]
    transition = re.fullmatch(r"transition(\d+)/(bn|conv)", layer)
    if transition:
        return f"pool{int(transition.group(1)) + 1}_{transition.group(2)}"
    block, number, part = _dense_layer(layer)
    return f"conv{int(block) + 1}_block{number}_{_KERAS_PARTS[part]}"


def torch_state(values: Mapping[str, np.ndarray], bn_epsilon: float) -> Dict[str, np.ndarray]:
    """The state dict of torchvision's (and timm's) DenseNet, as arrays, from our variables by name.

    Kernels are turned to Torch's axes, and the gammas make up for its epsilon, so that both compute the
    same.

    Args:
        values: our model variables, nothing else.
        bn_epsilon: that the network was trained with.
    """
    state = {}
    for name, value in values.items():
        layer, _, part = name.rpartition("/")
        if part == "kernel":
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        key = f"{_torch_module(layer)}.{_TORCH_VALUES[part]}"
        state[key] = np.ascontiguousarray(value, dtype=np.float32)
        if part == "gamma":
            variance = values[f"{layer}/moving_variance"]
            state[key] = with_epsilon(value, variance, bn_epsilon, TORCH_EPSILON)
    return state


def with_epsilon(gamma: np.ndarray, variance: np.ndarray, ours: float, theirs: float) -> np.ndarray:
    """The gamma with which a normalisation that adds `theirs` to the variance does what `ours` does."""
    factor = np.sqrt((variance.astype(np.float64) + theirs) / (variance.astype(np.float64) + ours))
    scaled: np.ndarray = (gamma * factor).astype(np.float32)
    return scaled


def _torch_module(layer: str) -> str:
    if layer in _TORCH_FIXED:
        return _TORCH_FIXED[layer]
    transition = re.fullmatch(r"transition(\d+)/(bn|conv)", layer)
    if transition:
        part = {"bn": "norm", "conv": "conv"}[transition.group(2)]
        return f"features.transition{transition.group(1)}.{part}"
    block, number, part = _dense_layer(layer)
    return f"features.denseblock{block}.denselayer{number}.{_TORCH_PARTS[part]}"


def _dense_layer(layer: str) -> tuple:
    match = re.fullmatch(r"block(\d+)/layer(\d+)/(bn1|conv1|bn2|conv2)", layer)
    if match is None:
        raise ValueError(f"{layer} is not a layer of a DenseNet of this project")
    return match.groups()
