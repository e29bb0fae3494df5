"""TensorFlow's convolutions with the gradients of `network.convolutions` in one graph.

Registered as a gradient of their own and taken for the convolutions of one graph alone, so graphs for other
devices keep TensorFlow's operations.
"""

from __future__ import annotations

from typing import ContextManager, List

import tensorflow as tf
from tensorflow.python.ops import nn_grad

from densenet_keras.network import convolutions

_GRADIENT = "DensenetKerasFastConv2D"


def fast_gradients(graph: tf.Graph) -> ContextManager[None]:
    """Inside, convolutions that are added to `graph` get the gradients of this module."""
    override: ContextManager[None] = graph.gradient_override_map({"Conv2D": _GRADIENT})
    return override


def form_of(convolution: tf.Operation) -> str:
    """PLAIN, PRODUCT or LABELLED: how the gradients of a Conv2D operation are computed."""
    attributes = {name: convolution.get_attr(name) for name in ("strides", "dilations")}
    if any(value != [1, 1, 1, 1] for value in attributes.values()):
        return convolutions.PLAIN
    if convolution.get_attr("data_format") != b"NHWC" or convolution.get_attr("padding") != b"SAME":
        return convolutions.PLAIN
    if convolution.inputs[0].dtype != tf.float32:
        return convolutions.PLAIN
    return convolutions.form_of(convolution.inputs[1].shape.as_list())


@tf.RegisterGradient(_GRADIENT)
def _gradients(convolution: tf.Operation, upstream: tf.Tensor) -> List[tf.Tensor]:
    """With respect to the input and to the kernel of `convolution`."""
    if form_of(convolution) == convolutions.PLAIN:
        return list(nn_grad._Conv2DGrad(convolution, upstream))
    images, kernel = convolution.inputs
    return [
        convolutions.input_gradient(images, kernel, upstream),
        convolutions.kernel_gradient(images, kernel, upstream),
    ]
