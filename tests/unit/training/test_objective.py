"""Losses and counts against their definitions, computed with numpy."""

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.training import objective


def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@pytest.fixture
def batch():
    random = np.random.RandomState(0)
    return random.normal(size=(6, 8)).astype(np.float32) * 3, np.array([0, 7, 3, 3, 5, 1], np.int32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_spreads_the_share_over_all_classes(batch, smoothing):
    logits, labels = batch
    target = np.full((6, 8), smoothing / 8)
    target[np.arange(6), labels] += 1 - smoothing
    expected = -(target * log_softmax(logits.astype(np.float64))).sum(axis=1).mean()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loss = objective.smoothed_cross_entropy(tf.constant(logits), tf.constant(labels), smoothing)
        assert session.run(loss) == pytest.approx(expected, rel=1e-5)


def test_padding_counts_nowhere(batch):
    logits, labels = batch
    weights = np.array([1, 1, 1, 0, 1, 0], np.float32)
    real = weights > 0
    order = np.argsort(-logits, axis=1)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        sums = session.run(
            objective.evaluation_sums(tf.constant(logits), tf.constant(labels), tf.constant(weights))
        )
    assert sums.images == 4
    assert sums.top1 == (order[:, 0] == labels)[real].sum()
    assert sums.top5 == (order[:, :5] == labels[:, np.newaxis]).any(axis=1)[real].sum()
    losses = -log_softmax(logits.astype(np.float64))[np.arange(6), labels]
    assert sums.loss == pytest.approx(losses[real].sum(), rel=1e-5)


def test_top5_of_fewer_classes_is_everything():
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        sums = session.run(
            objective.evaluation_sums(tf.constant([[1.0, 2.0, 0.0]]), tf.constant([0]), tf.constant([1.0]))
        )
    assert (sums.top1, sums.top5) == (0, 1)


def test_weight_decay_covers_all_or_kernels_only():
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        kernel = tf.Variable([[3.0, 4.0]])
        gamma = tf.Variable([2.0])
        session.run(tf.compat.v1.global_variables_initializer())
        everything = objective.decayed_variables([kernel, gamma], "all")
        kernels = objective.decayed_variables([kernel, gamma], "kernels")
        assert kernels == [kernel]
        assert session.run(objective.l2_loss(everything)) == pytest.approx((9 + 16 + 4) / 2)
        assert session.run(objective.l2_loss(kernels)) == pytest.approx((9 + 16) / 2)
        assert session.run(objective.l2_loss([])) == 0.0
