"""The layers: shapes, arithmetic, configuration, and what Keras tracks of their parts."""

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.network.layers import (
    DenseBlock,
    DenseLayer,
    TransitionLayer,
    original_initializer,
    seeded,
)

SMALL = [
    pytest.param(lambda: DenseLayer(4, bn_size=2, drop_rate=0.2), id="DenseLayer"),
    pytest.param(lambda: DenseBlock(3, 4, bn_size=2), id="DenseBlock"),
    pytest.param(lambda: TransitionLayer(0.4), id="TransitionLayer"),
]


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as fresh:
        yield fresh


def run(tensors, feed=None):
    with tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        return session.run(tensors, feed)


def images(channels=6, height=8, width=5, batch=2):
    values = np.random.RandomState(0).normal(size=(batch, height, width, channels))
    return tf.constant(values, tf.float32)


@pytest.mark.parametrize("make", SMALL)
def test_declared_output_shape_is_the_real_one(make):
    layer = make()
    x = images()
    declared = layer.compute_output_shape(x.shape)
    assert layer(x).shape.as_list() == declared.as_list()
    unknown = make().compute_output_shape((None, None, None, 6))
    assert unknown.as_list() == [None, None, None, declared.as_list()[-1]]


@pytest.mark.parametrize("make", SMALL)
def test_build_alone_creates_every_weight(make):
    built, called = make(), make()
    built.build((None, 8, 5, 6))
    called(images())
    assert [w.shape for w in built.weights] == [w.shape for w in called.weights]
    assert built.count_params() == called.count_params() > 0


@pytest.mark.parametrize("make", SMALL)
def test_second_call_shares_the_variables(make, graph):
    layer = make()
    layer(images(), training=True)
    before = graph.get_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES)
    updates = len(layer.updates)
    layer(images(), training=False)
    after = graph.get_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES)
    assert len(before) == len(after) == len(layer.weights)
    assert len(layer.updates) == updates > 0


SHARED = {"bn_momentum": 0.7, "bn_epsilon": 0.01, "seed": 9, "name": "some", "trainable": False}


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        (DenseLayer, {"growth_rate": 3, "bn_size": 5, "drop_rate": 0.25}),
        (DenseBlock, {"num_layers": 2, "growth_rate": 3, "bn_size": 5, "drop_rate": 0.25}),
        (TransitionLayer, {"compression": 0.3}),
    ],
)
def test_configuration_holds_every_argument(kind, own):
    given = {**own, **SHARED}
    config = kind(kernel_initializer="zeros", **given).get_config()
    again = kind.from_config(config).get_config()
    assert again == config
    assert {key: again[key] for key in given} == given
    assert again["kernel_initializer"]["class_name"] == "Zeros"


def test_arguments_reach_the_parts():
    block = DenseBlock(2, 3, bn_size=5, drop_rate=0.25, bn_momentum=0.7, bn_epsilon=0.01)
    part = block.dense_layers[1]
    assert (part.conv1.filters, part.conv2.filters, part.dropout.rate) == (15, 3, 0.25)
    for norm in (part.bn1, part.bn2, TransitionLayer(bn_momentum=0.7, bn_epsilon=0.01).bn):
        assert (norm.momentum, norm.epsilon) == (0.7, 0.01)


def test_defaults_are_those_of_the_original():
    for norm in (DenseLayer(4).bn1, TransitionLayer().bn):
        assert (norm.momentum, norm.epsilon) == (0.9, 1e-3)
    layer = DenseLayer(4)
    assert (layer.conv1.filters, layer.dropout) == (16, None)
    initializer = layer.conv2.kernel_initializer
    assert (initializer.scale, initializer.mode, initializer.distribution) == (
        5.0,
        "fan_out",
        "truncated_normal",
    )


def test_dense_layer_appends_the_new_features():
    layer = DenseLayer(4)
    x = images(channels=3)
    got, given = run([layer(x, training=False), x])
    np.testing.assert_array_equal(got[..., :3], given)
    assert got.shape[-1] == 7


def test_dense_layer_computes_the_paper_s_function():
    """BN-ReLU-conv1x1-BN-ReLU-conv3x3 in numpy, with arbitrary statistics."""
    random = np.random.RandomState(1)
    layer = DenseLayer(2, bn_size=3, bn_epsilon=0.01)
    x = images(channels=4, height=5, width=4)
    out = layer(x, training=False)
    values = {w: random.uniform(0.5, 1.5, w.shape.as_list()).astype(np.float32) for w in layer.weights}
    with tf.compat.v1.Session() as session:
        for variable, value in values.items():
            variable.load(value, session)
        got, given = session.run([out, x])

    def bn_relu(array, bn):
        gamma, beta, mean, variance = (
            values[w] for w in (bn.gamma, bn.beta, bn.moving_mean, bn.moving_variance)
        )
        return np.maximum(gamma * (array - mean) / np.sqrt(variance + 0.01) + beta, 0)

    hidden = bn_relu(bn_relu(given, layer.bn1) @ values[layer.conv1.kernel][0, 0], layer.bn2)
    padded = np.pad(hidden, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="constant")
    kernel = values[layer.conv2.kernel]
    expected = sum(padded[:, i : i + 5, j : j + 4] @ kernel[i, j] for i in range(3) for j in range(3))
    np.testing.assert_allclose(got[..., 4:], expected, rtol=1e-5)


def test_transition_averages_two_by_two():
    layer = TransitionLayer(0.5, kernel_initializer="ones")
    x = images(channels=4, height=5, width=4)
    got, given = run([layer(x, training=False), x])
    summed = np.maximum(given / np.sqrt(1 + layer.bn_epsilon), 0).sum(-1)[:, :4]
    pooled = summed.reshape(2, 2, 2, 2, 2).mean((2, 4))
    np.testing.assert_allclose(got, np.repeat(pooled[..., None], 2, -1), rtol=1e-5)


def test_dropout_acts_on_new_features_in_training_alone():
    layer = DenseLayer(50, drop_rate=0.5)
    x = images(channels=3)
    trained, inferred = run([layer(x, training=True), layer(x, training=False)])
    assert 0.4 < (trained[..., 3:] == 0).mean() < 0.6
    assert (inferred[..., 3:] == 0).mean() < 0.01
    assert (trained[..., :3] != 0).all()


def test_original_initializer_variance():
    kernel = original_initializer()([3, 3, 200, 100])
    assert run(kernel).std() == pytest.approx(np.sqrt(5 / (9 * 100)), rel=0.01)


def test_seed_makes_initial_values_independent_of_the_rest_of_the_graph():
    def initial(seed, nodes_before):
        with tf.Graph().as_default():
            tf.compat.v1.set_random_seed(3)
            for _ in range(nodes_before):
                tf.constant(0)
            block = DenseBlock(2, 4, seed=seed)
            block.build((None, 8, 8, 4))
            return run([layer.conv2.kernel for layer in block.dense_layers])

    first, again, other = initial(1, 0), initial(1, 7), initial(2, 0)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(np.unique(np.ravel(first))) == np.size(first)  # no two kernels alike


def test_seeded_leaves_other_initializers_alone():
    zeros = tf.keras.initializers.Zeros()
    assert seeded(zeros, 1) is zeros
    assert seeded(tf.keras.initializers.he_normal(seed=4), 1).seed == 4
    assert seeded("he_normal", 1).seed == 1
    assert seeded("he_normal", None).seed is None


def test_wrong_rank_is_refused():
    with pytest.raises(ValueError, match="ndim=4"):
        DenseLayer(4)(tf.zeros([2, 8, 8]))


def test_frozen_block_has_no_trainable_weights():
    block = DenseBlock(2, 4)
    block.build((None, 8, 8, 4))
    trainable = len(block.trainable_weights)
    block.trainable = False
    assert block.trainable_weights == []
    assert len(block.non_trainable_weights) == trainable + 8
