"""The building blocks, under their public name."""

from densenet_keras.network.layers import DenseBlock, DenseLayer, TransitionLayer

__all__ = ["DenseBlock", "DenseLayer", "TransitionLayer"]
