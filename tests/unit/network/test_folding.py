"""Batch normalisation folded away: the same logits from fewer operations."""

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.network.densenet import build_densenet, densenet
from densenet_keras.network.folding import folded_logits
from densenet_keras.network.variants import cifar_variant
from densenet_keras.settings.config import ModelConfig
from tests.support.networks import assign_arbitrary, pictures


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as fresh:
        tf.keras.backend.set_learning_phase(0)
        yield fresh


def networks():
    tiny = {"model": "densenet_tiny", "num_classes": 7, "image_size": 45}
    return {
        "standard": lambda x: build_densenet(ModelConfig(**tiny), x),
        "epsilon and widths": lambda x: build_densenet(
            ModelConfig(growth_rate=6, bn_size=3, bn_epsilon=0.5, drop_rate=0.2, **tiny), x
        ),
        "original stem": lambda x: build_densenet(ModelConfig(stem="original", **tiny), x),
        "cifar": lambda x: densenet(cifar_variant(depth=10, growth_rate=4), inputs=x),
    }


@pytest.mark.parametrize("for_this_cpu", [False, True])
@pytest.mark.parametrize("name", networks())
def test_folded_network_has_the_same_logits(name, for_this_cpu):
    x = tf.constant(pictures(size=45))
    model = networks()[name](x)
    logits = folded_logits(model, x, for_this_cpu)
    with tf.compat.v1.Session() as session:
        assign_arbitrary(session, model)
        expected, found = session.run([model.output, logits])
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("for_this_cpu", [False, True])
@pytest.mark.parametrize("every_third", [-0.7, 0.0, 1e-5])
def test_gammas_below_zero_and_at_zero_are_folded_as_well(every_third, for_this_cpu):
    x = tf.constant(pictures())
    model = build_densenet(ModelConfig(model="densenet_tiny"), x)
    logits = folded_logits(model, x, for_this_cpu)
    with tf.compat.v1.Session() as session:
        assign_arbitrary(session, model)
        for gamma in (each for each in model.weights if "gamma" in each.name):
            gamma.load(np.where(np.arange(int(gamma.shape[0])) % 3, 1.5, every_third), session)
        expected, found = session.run([model.output, logits])
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def operations(output):
    """Types of the operations that `output` needs, as a list."""
    graph = tf.compat.v1.graph_util.extract_sub_graph(output.graph.as_graph_def(), [output.op.name])
    return [node.op for node in graph.node]


def test_a_normalisation_is_a_bias_or_a_factor_and_a_bias():
    x = tf.compat.v1.placeholder(tf.float32, [None, 32, 32, 3])
    model = build_densenet(ModelConfig(model="densenet_tiny"), x)
    plain, folded = operations(model.output), operations(folded_logits(model, x))
    layers, transitions = 6, 2
    assert plain.count("FusedBatchNormV3") == 1 + 2 * layers + transitions + 1
    assert "FusedBatchNormV3" not in folded
    before_relus = layers + transitions + 1
    assert folded.count("BiasAdd") == before_relus + 1 + layers + 1  # stem, bottlenecks, classifier
    assert folded.count("Conv2D") == plain.count("Conv2D")


def test_a_transition_averages_before_it_convolves():
    x = tf.compat.v1.placeholder(tf.float32, [None, 32, 32, 3])
    logits = folded_logits(build_densenet(ModelConfig(model="densenet_tiny"), x), x)
    pools = [
        each for each in logits.graph.get_operations() if "folded" in each.name and each.type == "AvgPool"
    ]
    assert [user.type for pool in pools for user in pool.outputs[0].consumers()] == ["Conv2D", "Conv2D"]


def test_folding_follows_the_variables():
    """One graph serves every checkpoint: nothing is computed when it is built."""
    x = tf.constant(pictures())
    model = build_densenet(ModelConfig(model="densenet_tiny"), x)
    logits = folded_logits(model, x)
    with tf.compat.v1.Session() as session:
        for seed in (1, 2):
            assign_arbitrary(session, model, seed)
            expected, found = session.run([model.output, logits])
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_folding_adds_no_variable(graph):
    x = tf.constant(pictures())
    model = build_densenet(ModelConfig(model="densenet_tiny"), x)
    before = graph.get_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES)
    folded_logits(model, x)
    assert graph.get_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES) == before


def test_a_network_that_branches_is_refused():
    inputs = tf.keras.layers.Input((8, 8, 3))
    twice = [tf.keras.layers.Conv2D(2, 1)(inputs) for _ in range(2)]
    model = tf.keras.Model(inputs, tf.keras.layers.Add()(twice))
    with pytest.raises(ValueError, match="is not fed by"):
        folded_logits(model, tf.zeros([1, 8, 8, 3]))


def test_a_graph_for_any_program_has_no_operations_of_this_cpu_alone():
    x = tf.compat.v1.placeholder(tf.float32, [None, 136, 136, 3])
    model = build_densenet(ModelConfig(model="densenet_tiny", image_size=136), x)
    special = {"Conv2DBackpropInput", "SpaceToBatchND", "Switch"}
    assert not special & set(operations(folded_logits(model, x)))
    assert special <= set(operations(folded_logits(model, x, for_this_cpu=True)))
