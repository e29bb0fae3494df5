"""Dense blocks in the forms that cost less time or memory, against the plain one."""

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.network.densenet import build_densenet
from densenet_keras.network.layers import DenseBlock
from densenet_keras.settings.config import ModelConfig
from tests.support.networks import assign_arbitrary, pictures

ROUNDING = 1e-5  # of float32 sums, relative to the largest element
LAYERS = 3


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as fresh:
        tf.compat.v1.set_random_seed(3)
        tf.keras.backend.set_learning_phase(1)
        yield fresh


def trained(drop_rate=0.0, training=None, **forms):
    """Output, gradients and moving averages after one update of a block in a graph of its own."""
    with tf.Graph().as_default() as graph:
        tf.compat.v1.set_random_seed(3)
        tf.keras.backend.set_learning_phase(1)
        images = tf.constant(pictures(count=3, size=6)[..., :1] + np.arange(5, dtype=np.float32))
        block = DenseBlock(LAYERS, growth_rate=4, bn_size=2, drop_rate=drop_rate, seed=1, name="block")
        for name, value in forms.items():
            setattr(block, name, value)
        result = block(images, training=training)
        loss = tf.reduce_sum(tf.sin(result))
        gradients = tf.gradients(loss, [images, *block.trainable_weights])
        updates = block.get_updates_for(images)  # as a training step asks for them
        assert len(updates) == (0 if training is False else 4 * LAYERS)
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            assign_arbitrary(session, block)
            arrays = session.run([result, *gradients])
            session.run(updates)
            return arrays, session.run(block.non_trainable_weights), graph.get_operations()


def assert_equal_to_rounding(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=0, atol=ROUNDING * np.abs(other).max())


def count(operations, kind):
    return [operation.type for operation in operations].count(kind)


def test_shared_statistics_change_output_gradients_and_moving_averages_by_rounding_alone():
    plain, plain_moving, _ = trained()
    shared, shared_moving, operations = trained(share_statistics=True)
    assert count(operations, "FusedBatchNormV3") == LAYERS  # those between the convolutions
    assert_equal_to_rounding(shared, plain)
    assert_equal_to_rounding(shared_moving, plain_moving)
    assert max(np.abs(value - 1).max() for value in shared_moving) > 0.01  # they were updated


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("drop_rate", [0.0, 0.3])
def test_recomputed_blocks_have_the_same_bits(share, drop_rate):
    kept, kept_moving, plain = trained(drop_rate, share_statistics=share)
    again, again_moving, operations = trained(drop_rate, share_statistics=share, recompute=True)
    assert count(operations, "Conv2D") == 2 * count(plain, "Conv2D")
    for one, other in zip([*again, *again_moving], [*kept, *kept_moving]):
        np.testing.assert_array_equal(one, other)


def test_what_is_recomputed_waits_for_the_gradient_that_needs_it():
    _, _, operations = trained(recompute=True)
    held = [each for each in operations if each.type == "Identity" and each.control_inputs]
    assert len(held) >= 7 * LAYERS  # each layer's input, scale, shift and four weights


@pytest.mark.parametrize("forms", [{"share_statistics": True}, {"recompute": True}])
def test_inference_and_kept_statistics_are_plain_whatever_the_form(forms):
    _, _, plain = trained(training=False)
    _, _, operations = trained(training=False, **forms)
    assert [each.type for each in operations] == [each.type for each in plain]


def test_a_network_hands_the_forms_to_its_blocks():
    model = build_densenet(
        ModelConfig(model="densenet_tiny"), tf.constant(pictures()), share_statistics=True, recompute=True
    )
    blocks = [layer for layer in model.layers if isinstance(layer, DenseBlock)]
    assert blocks
    assert all(block.share_statistics and block.recompute for block in blocks)
    # The form is the training's, not the network's: saved models are plain.
    assert DenseBlock.from_config(blocks[0].get_config()).share_statistics is False
