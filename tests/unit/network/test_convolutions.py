"""Forms of convolutions that only inference on a CPU takes, against the plain ones."""

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.network.convolutions import TRANSPOSED_FROM_PIXELS, convolve, padded

LARGE, SMALL = int(TRANSPOSED_FROM_PIXELS**0.5), 5


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as fresh:
        yield fresh


@pytest.mark.parametrize(
    ("size", "channels", "filters", "kernel_size", "form"),
    [
        ((LARGE, LARGE), 8, 4, 3, "Conv2DBackpropInput"),
        ((LARGE + 9, LARGE - 1), 9, 2, 3, "Conv2DBackpropInput"),
        ((SMALL, SMALL), 8, 4, 3, "Conv2D"),
        ((LARGE, LARGE), 8, 5, 3, "Conv2D"),  # nearly as many filters as channels
        ((LARGE, LARGE), 8, 4, 1, "Conv2D"),
    ],
)
@pytest.mark.parametrize("batch", [2, None])
def test_a_convolution_is_the_same_in_its_other_form(
    graph, size, channels, filters, kernel_size, form, batch
):
    random = np.random.RandomState(1)
    images = random.randn(2, *size, channels).astype(np.float32)
    kernel = tf.constant(random.randn(kernel_size, kernel_size, channels, filters), tf.float32)
    x = tf.compat.v1.placeholder(tf.float32, [batch, *size, channels])
    result = convolve(x, kernel)
    assert result.op.type == form
    assert result.shape.as_list()[1:] == [*size, filters]
    with tf.compat.v1.Session() as session:
        found, expected = session.run([result, tf.nn.conv2d(x, kernel, 1, "SAME")], {x: images})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_images_of_unknown_size_are_convolved_plainly():
    x = tf.compat.v1.placeholder(tf.float32, [None, None, None, 8])
    assert convolve(x, tf.zeros([3, 3, 8, 4])).op.type == "Conv2D"


@pytest.mark.parametrize("paddings", [((3, 3), (3, 3)), ((0, 1), (2, 0))])
def test_padding_is_that_of_tensorflow(paddings):
    x = tf.random.normal([2, 5, 4, 3], seed=1)
    with tf.compat.v1.Session() as session:
        found, expected = session.run([padded(x, paddings), tf.pad(x, [(0, 0), *paddings, (0, 0)])])
    np.testing.assert_array_equal(found, expected)
