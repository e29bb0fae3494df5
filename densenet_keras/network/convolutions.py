"""Convolutions and their gradients in the forms that cost a CPU less time than TensorFlow's own choice.

For strides of 1 and "same" padding, ``[batch, height, width, channels] float32``. Every form sums the same
products in another order: results differ from the plain ones by float32 rounding, and are bit-equal from run
to run on one number of threads.
"""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, NamedTuple, Sequence, Tuple

import tensorflow as tf

from densenet_keras.network.constants import integers

PLAIN, PRODUCT, LABELLED = "plain", "product", "labelled"
# A second set of kernels for both gradients, which TensorFlow registers for the CPU alone.
_LABELS = {"Conv2DBackpropFilter": "eigen_tensor", "Conv2DBackpropInput": "eigen_tensor"}
_SAME = {"strides": [1, 1, 1, 1], "padding": "SAME"}


class Rule(NamedTuple):
    """A line of the table: the form for convolutions of one kernel from a number of input channels on."""

    kernel: Tuple[int, int]
    min_channels: int
    form: str


# Height times width from which a 3x3 convolution to fewer channels is faster in another form: 0.82 of the
# processor time at 56x56 and at 40x40, 0.9 at 32x32, 1.3 at 16x16 (batch 8 to 32, 128 to 32 channels).
TRANSPOSED_FROM_PIXELS = 32 * 32

# Measured by benchmarks/convolution_gradients.py on the shapes of DenseNet-121; the first line that fits.
# Few channels (a stem) are left plain: the labelled filter gradient then takes up to 16 times as long.
RULES = (Rule((1, 1), 1, PRODUCT), Rule((3, 3), 32, LABELLED))


def form_of(kernel_shape: Sequence[int]) -> str:
    """PLAIN, PRODUCT or LABELLED: how both gradients are computed for ``[height, width, in, out]``."""
    height, width, channels, _ = kernel_shape
    for rule in RULES:
        if rule.kernel == (height, width) and channels >= rule.min_channels:
            return rule.form
    return PLAIN


def convolve(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """The convolution, forward."""
    _, height, width, channels = images.shape.as_list()
    kernel_size, filters = kernel.shape.as_list()[:2], int(kernel.shape[-1])
    is_large = height is not None and width is not None and height * width >= TRANSPOSED_FROM_PIXELS
    if kernel_size != [3, 3] or not is_large or channels < 2 * filters:
        return tf.nn.conv2d(images, kernel, strides=1, padding="SAME")
    # As the input gradient of the convolution with the flipped kernel, of which TensorFlow's kernel is one
    # product of matrices for all nine shifts, and then their sum.
    shape = [*images.shape[:3], filters]
    known = images.shape.is_fully_defined()
    result = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=integers(shape) if known else tf.stack([*tf.unstack(tf.shape(images)[:3]), filters]),
        filter=tf.transpose(tf.reverse(kernel, integers([0, 1])), integers([0, 1, 3, 2])),
        out_backprop=images,
        **_SAME,
    )
    result.set_shape(shape)
    return result


def padded(images: tf.Tensor, paddings: Sequence[Sequence[int]]) -> tf.Tensor:
    """Zeros around `images`, as tf.pad gives them, in 0.07 (3 channels) to 0.5 (64) of its time.

    Args:
        paddings: rows above and below, columns left and right.
    """
    return tf.raw_ops.SpaceToBatchND(input=images, block_shape=integers([1, 1]), paddings=paddings)


def input_gradient(images: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    """The gradient with respect to `images`, of which only the shape is used."""
    shape = integers(images.shape) if images.shape.is_fully_defined() else tf.shape(images)
    form = form_of(kernel.shape.as_list())
    if form == PRODUCT:
        channels, filters = kernel.shape.as_list()[2:]
        rows = tf.reshape(upstream, integers([-1, filters]))
        matrix = tf.reshape(kernel, integers([channels, filters]))
        return tf.reshape(tf.matmul(rows, matrix, transpose_b=True), shape)
    with _kernels_of(form):
        return tf.raw_ops.Conv2DBackpropInput(
            input_sizes=shape, filter=kernel, out_backprop=upstream, **_SAME
        )


def kernel_gradient(images: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    """The gradient with respect to `kernel`, of which only the shape is used."""
    form, shape = form_of(kernel.shape.as_list()), integers(kernel.shape)
    if form == PRODUCT:
        return tf.reshape(_pixels_product(images, upstream), shape)
    with _kernels_of(form):
        return tf.raw_ops.Conv2DBackpropFilter(
            input=images, filter_sizes=shape, out_backprop=upstream, **_SAME
        )


def _pixels_product(images: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    """``[channels, filters]``: sums over pixels of the products of each channel with each filter."""
    channels, filters = int(images.shape[-1]), int(upstream.shape[-1])
    left, right = (tf.reshape(x, integers([-1, x.shape[-1]])) for x in (images, upstream))
    # The operand that is transposed is gathered element by element: the narrow one, if there is one.
    if channels > filters:
        return tf.transpose(tf.matmul(right, left, transpose_a=True), integers([1, 0]))
    return tf.matmul(left, right, transpose_a=True)


@contextlib.contextmanager
def _kernels_of(form: str) -> Iterator[Any]:
    if form != LABELLED:
        yield
        return
    with tf.compat.v1.get_default_graph()._kernel_label_map(_LABELS):
        yield
