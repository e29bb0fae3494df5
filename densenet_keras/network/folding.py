"""The inference form of a network with batch normalisation folded away, on the network's own variables.

Behind a convolution, normalisation with fixed statistics is a factor for each output channel of the kernel
and a bias. Before one it is a multiply and an add: the ReLU between them lets only a factor above zero pass,
as `normalisation` has it. A transition averages pixels before its convolution, as `rearranged` does in
training.

The products are nodes on the variables, so one graph serves any number of checkpoints. Once the variables
are constants, so are the products, and a program that writes a graph to a file can compute them first.
"""

from __future__ import annotations

from typing import List, Sequence, Tuple, Union

import tensorflow as tf

from densenet_keras.network import convolutions
from densenet_keras.network.layers import DenseBlock, DenseLayer, TransitionLayer
from densenet_keras.network.normalisation import Moments, NormalisedRelu, norm_weights

_Conv2D = tf.keras.layers.Conv2D
_BatchNorm = tf.keras.layers.BatchNormalization


def folded_logits(model: tf.keras.Model, images: tf.Tensor, for_this_cpu: bool = False) -> tf.Tensor:
    """What ``model(images, training=False)`` gives, to rounding, with fewer operations.

    Args:
        model: a network of `densenet`, in the default graph.
        images: ``[batch, height, width, channels] float32``, normalised.
        for_this_cpu: with the forms of `convolutions`, whose operations other programs and devices may lack.

    Returns:
        Logits ``[batch, classes] float32``.

    Raises:
        ValueError: a layer has more than one input, so the network is not one of `densenet`.
    """
    x, layers = images, _chain(model)
    with tf.name_scope("folded"):
        while layers:
            layer = layers.pop(0)
            with tf.name_scope(layer.name):
                if isinstance(layer, _Conv2D) and layers and isinstance(layers[0], _BatchNorm):
                    x = _convolve(layer, layer.kernel, layers.pop(0), x)
                elif isinstance(layer, DenseBlock):
                    pairs = [(each.bn1, each.conv1.kernel) for each in layer.dense_layers]
                    for dense_layer, relu in zip(layer.dense_layers, _relus(pairs, for_this_cpu)):
                        with tf.name_scope(dense_layer.name):
                            x = _dense_layer(dense_layer, relu, x, for_this_cpu)
                elif isinstance(layer, TransitionLayer):
                    (relu,) = _relus([(layer.bn, layer.reduction.kernel)], for_this_cpu)
                    # Both are linear: averaged first, the convolution has a quarter of the pixels.
                    x = convolutions.convolve(layer.pool.call(relu(x)), relu.kernel())
                elif isinstance(layer, _BatchNorm):
                    x = _normalise(layer, x)
                elif for_this_cpu and isinstance(layer, tf.keras.layers.ZeroPadding2D):
                    x = convolutions.padded(x, layer.padding)
                else:  # without statistics: the same in both forms
                    x = layer.call(x)
    return x


def scale_and_shift(norm: tf.keras.layers.BatchNormalization) -> Tuple[tf.Tensor, tf.Tensor]:
    """The two vectors ``[channels]`` with which the normalisation of x in inference is x * scale + shift."""
    scale = norm.gamma * tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    return scale, norm.beta - norm.moving_mean * scale


def _chain(model: tf.keras.Model) -> List[tf.keras.layers.Layer]:
    """The layers behind the input, each fed by the one before it."""
    layers = [layer for layer in model.layers if not isinstance(layer, tf.keras.layers.InputLayer)]
    for before, layer in zip(layers, layers[1:]):
        if layer.input is not before.output:
            raise ValueError(f"layer {layer.name} is not fed by {before.name} alone")
    return layers


def _normalise(norm: tf.keras.layers.BatchNormalization, x: tf.Tensor) -> tf.Tensor:
    scale, shift = scale_and_shift(norm)
    return tf.nn.bias_add(x * scale, shift)


class _PlainRelu:
    """A normalisation with its ReLU as any device has it, used as a `NormalisedRelu` is."""

    def __init__(self, norm: tf.keras.layers.BatchNormalization, kernel: tf.Tensor) -> None:
        self._norm, self._kernel = norm, kernel

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(_normalise(self._norm, x))

    def kernel(self) -> tf.Tensor:
        return self._kernel


_Relu = Union[_PlainRelu, NormalisedRelu]


def _relus(
    pairs: Sequence[Tuple[tf.keras.layers.BatchNormalization, tf.Variable]], for_this_cpu: bool
) -> List[_Relu]:
    """Of normalisations with a ReLU and the kernels of the convolutions behind them."""
    if not for_this_cpu:
        return [_PlainRelu(norm, kernel) for norm, kernel in pairs]
    weights = norm_weights([(norm.gamma, norm.beta) for norm, _ in pairs])
    return [
        NormalisedRelu(
            own, kernel, Moments(norm.moving_mean.value(), norm.moving_variance.value()), norm.epsilon
        )
        for own, (norm, kernel) in zip(weights, pairs)
    ]


def _convolve(
    conv: tf.keras.layers.Conv2D, kernel: tf.Tensor, norm: tf.keras.layers.BatchNormalization, x: tf.Tensor
) -> tf.Tensor:
    """Convolution without bias by `kernel`, and normalisation behind it, in one."""
    scale, shift = scale_and_shift(norm)
    x = tf.nn.conv2d(x, kernel * scale, strides=conv.strides, padding=conv.padding.upper())
    return tf.nn.bias_add(x, shift)


def _dense_layer(layer: DenseLayer, relu: _Relu, x: tf.Tensor, for_this_cpu: bool) -> tf.Tensor:
    new = tf.nn.relu(_convolve(layer.conv1, relu.kernel(), layer.bn2, relu(x)))
    new = convolutions.convolve(new, layer.conv2.kernel) if for_this_cpu else layer.conv2.call(new)
    return tf.concat([x, new], axis=-1)
