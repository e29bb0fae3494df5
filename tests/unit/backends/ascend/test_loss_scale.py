"""Loss scaling by the gradients themselves, for NPUs that give Inf and NaN."""

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.backends.ascend.loss_scale import FiniteLossScaleOptimizer


class Manager:
    """A fixed scale that notes what it is told."""

    def __init__(self, scale):
        self.scale = scale
        self.told = tf.compat.v1.get_variable("told", [], tf.bool, use_resource=True)

    def get_loss_scale(self):
        return tf.constant(self.scale)

    def update_loss_scale(self, finite):
        return self.told.assign(finite).op


def stepped(scale, slope):
    """Weights after one step on slope * w[0] + w[1], steps counted, and what the manager was told."""
    with tf.Graph().as_default():
        manager = Manager(scale)
        ones = tf.compat.v1.ones_initializer()
        weights = [
            tf.compat.v1.get_variable(f"w{n}", [], initializer=ones, use_resource=True) for n in (0, 1)
        ]
        steps = tf.compat.v1.get_variable("steps", [], tf.int64, tf.zeros_initializer(), use_resource=True)
        optimizer = FiniteLossScaleOptimizer(tf.compat.v1.train.MomentumOptimizer(0.5, 0.9), manager)
        pairs = optimizer.compute_gradients(slope * weights[0] + weights[1], weights)
        update = optimizer.apply_gradients(pairs, steps)
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            session.run(update)
            return session.run([*weights, steps, manager.told])


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_a_scale_does_not_change_an_update(scale):
    assert stepped(scale, 0.5) == [0.75, 0.5, 1, True]


@pytest.mark.parametrize(("scale", "slope"), [(1e38, 1e3), (1.0, np.nan), (1.0, np.inf)])
def test_an_update_with_one_gradient_that_is_not_finite_is_left_out_whole(scale, slope):
    assert stepped(scale, slope) == [1.0, 1.0, 0, False]
