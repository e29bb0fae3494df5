"""Dense blocks in the forms that cost less time or memory, against the plain one."""

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.network import convolutions
from densenet_keras.network.densenet import build_densenet
from densenet_keras.network.layers import DenseBlock, TransitionLayer
from densenet_keras.settings.config import ModelConfig
from tests.support.networks import assign_arbitrary, pictures

ROUNDING = 1e-5  # of float32 sums, relative to the largest element, for each of the layers in a row
DEPTH = 3
FORMS = ("rearranged", "recompute", "keep_bottlenecks")


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as fresh:
        tf.compat.v1.set_random_seed(3)
        tf.keras.backend.set_learning_phase(1)
        yield fresh


def trained(layer="block", training=None, channels=5, **options):
    """Output, gradients and moving averages after one update of layers in a graph of their own.

    Args:
        options: attributes of the layers, and arguments of their constructors.
    """
    forms = {name: options.pop(name) for name in FORMS if name in options}
    with tf.Graph().as_default() as graph:
        tf.compat.v1.set_random_seed(3)
        tf.keras.backend.set_learning_phase(1)
        every_third_gamma = options.pop("every_third_gamma", None)
        images = tf.constant(pictures(count=3, size=6)[..., :1] + np.arange(channels, dtype=np.float32) % 3)
        if options.pop("dynamic", False):
            images = tf.compat.v1.placeholder_with_default(images, [None, None, None, channels])
        parts = [each(**options) for each in LAYERS_OF[layer]]
        result, updates, weights, averages = images, [], [], []
        for part in parts:
            for name, value in forms.items():
                setattr(part, name, value)
            result = part(result, training=training)
            updates += part.get_updates_for(images)  # as a training step asks for them
            weights, averages = weights + part.trainable_weights, averages + part.non_trainable_weights
        loss = tf.reduce_sum(tf.sin(result))
        gradients = tf.gradients(loss, [images, *weights])
        assert len(updates) == (0 if training is False else len(averages))
        # As backends have it where they rearrange: a convolution fused with what follows rounds otherwise.
        config = tf.compat.v1.ConfigProto()
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        with tf.compat.v1.Session(config=config) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            for part in parts:
                assign_arbitrary(session, part)
            if every_third_gamma is not None:
                for gamma in (each for each in weights if "gamma" in each.name):
                    of_channel = np.arange(int(gamma.shape[0]))
                    gamma.load(np.where(of_channel % 3, 1.5, every_third_gamma), session)
            arrays = session.run([result, *gradients])
            session.run(updates)
            return arrays, session.run(averages), graph.get_operations()


def block(**options):
    return DenseBlock(DEPTH, growth_rate=4, bn_size=2, seed=1, name="block", **options)


def transition(**options):
    return TransitionLayer(seed=1, name="transition", **options)


LAYERS_OF = {"block": [block], "transition": [transition], "both": [block, transition]}


def assert_equal_to_rounding(found, expected, layers=1):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=0, atol=layers * ROUNDING * np.abs(other).max())


def count(operations, kind):
    return [operation.type for operation in operations].count(kind)


@pytest.mark.parametrize("layer", LAYERS_OF)
@pytest.mark.parametrize(
    "case",
    [
        {},
        {"every_third_gamma": 0.0},
        {"every_third_gamma": 1e-5},
        {"every_third_gamma": -0.7},
        {"dynamic": True},
        {"channels": 40},
        {"channels": 70},
        {"bn_epsilon": 1e-5},
    ],
)
def test_the_rearranged_form_changes_output_gradients_and_averages_by_rounding_alone(layer, case):
    plain, plain_moving, _ = trained(layer, **case)
    found, found_moving, operations = trained(layer, rearranged=True, **case)
    assert count(operations, "FusedBatchNormV3") == 0
    assert_equal_to_rounding(found, plain, layers=len(LAYERS_OF[layer]))
    assert_equal_to_rounding(found_moving, plain_moving)
    assert max(np.abs(value - 1).max() for value in found_moving) > 0.01  # they were updated


def test_so_it_is_where_feature_maps_are_large(monkeypatch):
    plain, _, _ = trained()
    monkeypatch.setattr(convolutions, "TRANSPOSED_FROM_PIXELS", 6 * 6)
    found, _, operations = trained(rearranged=True)
    assert count(operations, "Conv2D") == DEPTH  # the 1x1 ones
    assert_equal_to_rounding(found, plain)


def test_a_transition_takes_the_statistics_that_its_block_has():
    def sums(layer):
        return count(trained(layer, rearranged=True)[2], "BatchMatMulV2")

    assert sums("both") == sums("block") + 2  # of its gradients


def test_a_rearranged_transition_averages_before_it_convolves():
    _, _, operations = trained("transition", rearranged=True)
    convolution = next(each for each in operations if each.type == "Conv2D")
    assert convolution.inputs[0].op.type == "AvgPool"


@pytest.mark.parametrize(
    ("form", "convolutions_again"),
    [
        ({}, 2),  # of which the second is never run: no gradient needs its result
        ({"rearranged": True}, 1),
        ({"rearranged": True, "keep_bottlenecks": True}, 0),
    ],
)
@pytest.mark.parametrize("drop_rate", [0.0, 0.3])
def test_recomputed_blocks_have_the_same_bits(form, convolutions_again, drop_rate):
    kept, kept_moving, plain = trained(drop_rate=drop_rate, **form)
    again, again_moving, operations = trained(drop_rate=drop_rate, recompute=True, **form)
    assert count(operations, "Conv2D") == count(plain, "Conv2D") + DEPTH * convolutions_again
    assert count(operations, "Relu") == count(plain, "Relu") + 2 * DEPTH
    for one, other in zip([*again, *again_moving], [*kept, *kept_moving]):
        np.testing.assert_array_equal(one, other)


def test_recomputed_transitions_have_the_same_bits():
    kept, kept_moving, plain = trained("transition", rearranged=True)
    again, again_moving, operations = trained("transition", rearranged=True, recompute=True)
    assert count(operations, "Relu") == count(plain, "Relu") + 1
    for one, other in zip([*again, *again_moving], [*kept, *kept_moving]):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rearranged", [False, True])
def test_dropped_features_are_the_same_in_every_form(rearranged):
    plain, _, _ = trained(drop_rate=0.5)
    found, _, _ = trained(drop_rate=0.5, rearranged=rearranged)
    assert_equal_to_rounding(found, plain)


@pytest.mark.parametrize(
    ("form", "held"),
    [
        ({}, 7),  # input and weights of a layer
        ({"rearranged": True}, 1),  # the block's result
        ({"rearranged": True, "keep_bottlenecks": True}, 2),
    ],
)
def test_what_is_recomputed_waits_for_the_gradient_that_needs_it(form, held):
    _, _, operations = trained(recompute=True, **form)
    waiting = [each for each in operations if each.type == "Identity" and each.control_inputs]
    assert len(waiting) >= held * DEPTH


@pytest.mark.parametrize("forms", [{"rearranged": True}, {"recompute": True}])
def test_inference_and_kept_statistics_are_plain_whatever_the_form(forms):
    _, _, plain = trained(training=False)
    _, _, operations = trained(training=False, **forms)
    assert [each.type for each in operations] == [each.type for each in plain]


def test_a_network_hands_the_forms_to_its_blocks():
    model = build_densenet(
        ModelConfig(model="densenet_tiny"), tf.constant(pictures()), rearranged=True, recompute=True
    )
    blocks = [layer for layer in model.layers if isinstance(layer, DenseBlock)]
    assert blocks
    assert all(block.rearranged and block.recompute for block in blocks)
    # The form is the training's, not the network's: saved models are plain.
    assert DenseBlock.from_config(blocks[0].get_config()).rearranged is False


def test_a_rearranged_layer_adds_few_operations_to_a_graph():
    def added(depth):
        """Operations of a block so deep and of its gradients, besides those of its variables."""
        with tf.Graph().as_default() as graph:
            tf.keras.backend.set_learning_phase(1)
            part = DenseBlock(depth, growth_rate=4, name="block")
            part.rearranged = True
            images = tf.constant(pictures(count=3, size=6))
            part.build(images.shape)
            before = len(graph.get_operations())
            tf.gradients(part(images), [images, *part.trainable_weights])
            return len(graph.get_operations()) - before

    assert added(4) - added(3) <= 160  # a start waits for each of them, 58 times in DenseNet-121
