"""Gradients of convolutions that a CPU computes in less time than TensorFlow's own choice.

Registered as a gradient of their own and taken for the convolutions of one graph alone, so graphs for other
devices keep TensorFlow's operations. Every form sums the same products in another order: results differ
from the plain ones by float32 rounding, and are bit-equal from run to run on one number of threads.
"""

from __future__ import annotations

from typing import ContextManager, List, NamedTuple, Tuple

import tensorflow as tf
from tensorflow.python.ops import nn_grad

_GRADIENT = "DensenetKerasFastConv2D"
# A second set of kernels for both gradients, which TensorFlow registers for the CPU alone.
_LABELS = {"Conv2DBackpropFilter": "eigen_tensor", "Conv2DBackpropInput": "eigen_tensor"}
PLAIN, PRODUCT, LABELLED = "plain", "product", "labelled"


class Rule(NamedTuple):
    """A line of the table: the form for convolutions of one kernel from a number of input channels on."""

    kernel: Tuple[int, int]
    min_channels: int
    form: str


# Measured by benchmarks/convolution_gradients.py on the shapes of DenseNet-121; the first line that fits.
# Few channels (a stem) are left plain: the labelled filter gradient then takes up to 16 times as long.
RULES = (Rule((1, 1), 1, PRODUCT), Rule((3, 3), 32, LABELLED))


def fast_gradients(graph: tf.Graph) -> ContextManager[None]:
    """Inside, convolutions that are added to `graph` get the gradients of this module."""
    override: ContextManager[None] = graph.gradient_override_map({"Conv2D": _GRADIENT})
    return override


def form_of(convolution: tf.Operation) -> str:
    """PLAIN, PRODUCT or LABELLED: how the gradients of a Conv2D operation are computed."""
    attributes = {name: convolution.get_attr(name) for name in ("strides", "dilations")}
    if any(value != [1, 1, 1, 1] for value in attributes.values()):
        return PLAIN
    if convolution.get_attr("data_format") != b"NHWC" or convolution.get_attr("padding") != b"SAME":
        return PLAIN
    if convolution.inputs[0].dtype != tf.float32:
        return PLAIN
    height, width, channels, _ = convolution.inputs[1].shape.as_list()
    for rule in RULES:
        if rule.kernel == (height, width) and channels >= rule.min_channels:
            return rule.form
    return PLAIN


@tf.RegisterGradient(_GRADIENT)
def _gradients(convolution: tf.Operation, gradient: tf.Tensor) -> List[tf.Tensor]:
    """With respect to the input and to the kernel of `convolution`."""
    form = form_of(convolution)
    if form == PRODUCT:
        return _products(convolution, gradient)
    if form == LABELLED:
        with convolution.graph._kernel_label_map(_LABELS):
            return list(nn_grad._Conv2DGrad(convolution, gradient))
    return list(nn_grad._Conv2DGrad(convolution, gradient))


def _products(convolution: tf.Operation, gradient: tf.Tensor) -> List[tf.Tensor]:
    """A 1x1 convolution is a product of the pixels ``[batch * height * width, channels]`` with its kernel."""
    images, kernel = convolution.inputs
    channels, filters = kernel.shape.as_list()[2:]
    rows = tf.reshape(gradient, [-1, filters])
    of_images = tf.matmul(rows, tf.reshape(kernel, [channels, filters]), transpose_b=True)
    of_kernel = tf.matmul(tf.reshape(images, [-1, channels]), rows, transpose_a=True)
    shape = images.shape if images.shape.is_fully_defined() else tf.shape(images)
    return [tf.reshape(of_images, shape), tf.reshape(of_kernel, kernel.shape)]
