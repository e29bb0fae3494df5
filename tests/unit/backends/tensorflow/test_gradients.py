"""The fast gradients of convolutions against TensorFlow's own."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.backends.tensorflow import gradients
from densenet_keras.backends.tensorflow.backend import TensorFlowBackend
from densenet_keras.network import convolutions
from densenet_keras.network.layers import DenseBlock, TransitionLayer
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology

ROUNDING = 1e-5  # of float32 sums, relative to the largest element


def values(build, fast, threads=2):
    """Arrays of the tensors that `build` returns in a graph of its own, and the graph's operations."""
    backend = TensorFlowBackend(
        Config().replace(fast_cpu=fast, intra_op_threads=threads, data_threads=1), Topology()
    )
    graph = tf.Graph()
    with graph.as_default(), backend.placement():
        tf.compat.v1.set_random_seed(1)
        tf.keras.backend.set_learning_phase(1)
        tensors = build()
        initialise = tf.compat.v1.global_variables_initializer()
    with backend.session(graph) as session:
        session.run(initialise)
        return session.run(tensors), graph.get_operations()


def convolution(size, channels, filters, kernel, batch=2, strides=1, padding="SAME", static=True):
    def build():
        random = np.random.RandomState(0)
        images = tf.constant(random.randn(batch, size, size, channels), tf.float32)
        if not static:
            images = tf.compat.v1.placeholder_with_default(images, [None, None, None, channels])
        weights = tf.constant(random.randn(kernel, kernel, channels, filters), tf.float32)
        result = tf.nn.conv2d(images, weights, strides=strides, padding=padding)
        return [result, *tf.gradients(tf.reduce_sum(tf.sin(result)), [images, weights])]

    return build


def assert_equal_to_rounding(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=0, atol=ROUNDING * np.abs(other).max())


@pytest.mark.parametrize(
    ("form", "shape"),
    [
        (convolutions.PRODUCT, {"size": 7, "channels": 24, "filters": 16, "kernel": 1}),
        (convolutions.PRODUCT, {"size": 5, "channels": 3, "filters": 2, "kernel": 1, "static": False}),
        (convolutions.LABELLED, {"size": 8, "channels": 32, "filters": 12, "kernel": 3}),
        (convolutions.LABELLED, {"size": 1, "channels": 128, "filters": 32, "kernel": 3}),
        (convolutions.LABELLED, {"size": 7, "channels": 40, "filters": 8, "kernel": 3, "static": False}),
        (convolutions.PLAIN, {"size": 9, "channels": 3, "filters": 8, "kernel": 7, "strides": 2}),
        (convolutions.PLAIN, {"size": 9, "channels": 3, "filters": 8, "kernel": 3}),
        (convolutions.PLAIN, {"size": 8, "channels": 32, "filters": 8, "kernel": 1, "strides": 2}),
        (convolutions.PLAIN, {"size": 8, "channels": 32, "filters": 8, "kernel": 3, "padding": "VALID"}),
    ],
)
def test_gradients_equal_the_plain_ones(form, shape):
    build = convolution(**shape)
    found, operations = values(build, fast=True)
    expected, _ = values(build, fast=False)
    assert [gradients.form_of(each) for each in operations if each.type == "Conv2D"] == [form]
    assert_equal_to_rounding(found, expected)


def block():
    random = np.random.RandomState(0)
    images = tf.constant(random.randn(4, 6, 6, 32), tf.float32)
    dense = DenseBlock(3, growth_rate=8, seed=1, name="block")
    transition = TransitionLayer(seed=2, name="transition")
    result = transition(dense(images, training=True), training=True)
    loss = tf.reduce_mean(tf.square(result))
    variables = [*dense.trainable_weights, *transition.trainable_weights]
    return [result, *tf.gradients(loss, [images, *variables])]


def test_outputs_and_gradients_of_a_block_equal_the_plain_ones():
    found, operations = values(block, fast=True)
    expected, plain = values(block, fast=False)
    assert_equal_to_rounding(found, expected)
    types = [operation.type for operation in operations]
    assert types.count("Conv2DBackpropFilter") == 3  # those of the 3x3 kernels
    assert [operation.type for operation in plain].count("Conv2DBackpropFilter") == 7


def test_results_are_bit_equal_from_session_to_session():
    wide = {"size": 16, "channels": 64, "filters": 32, "batch": 4}
    for build in (block, convolution(kernel=1, **wide), convolution(kernel=3, **wide)):
        first, _ = values(build, fast=True)
        second, _ = values(build, fast=True)
        for one, other in zip(first, second):
            np.testing.assert_array_equal(one, other)


def labels(operations):
    found = set()
    for operation in operations:
        with contextlib.suppress(ValueError):
            found.add(operation.get_attr("_kernel"))
    return found


def test_the_plain_path_and_graphs_beside_it_hold_no_trace_of_the_fast_one():
    build = convolution(size=8, channels=32, filters=8, kernel=3)
    assert labels(values(build, fast=True)[1]) == {b"eigen_tensor"}
    _, operations = values(build, fast=False)
    with tf.Graph().as_default() as graph:
        build()
    for each in [*operations, *graph.get_operations()]:
        assert not {"_kernel", "_gradient_op_type"} & set(each.node_def.attr)
