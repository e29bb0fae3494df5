"""The learning rate of every step against the original's table, derived again from its formula.

One deliberate difference: the original ends at T_max epochs and reads beyond its table in longer
runs; here the rate stays at zero.
"""

import math

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.settings.config import OptimizerConfig
from densenet_keras.training.callbacks import CosineLearningRate

IMAGES, GLOBAL_BATCH, EPOCHS = 1281167, 256, 150
STEPS_PER_EPOCH = IMAGES // GLOBAL_BATCH
TOTAL_STEPS = STEPS_PER_EPOCH * EPOCHS


def original_table(base, eta_min=0.0):
    """float32 [TOTAL_STEPS]: eta_min + (base - eta_min) (1 + cos(pi epoch / T_max)) / 2, in float64 first."""
    of_epoch = [
        eta_min + (base - eta_min) * (1.0 + math.cos(math.pi * epoch / EPOCHS)) / 2 for epoch in range(EPOCHS)
    ]
    return np.repeat(np.array(of_epoch), STEPS_PER_EPOCH).astype(np.float32)


def rates(steps, dtype=tf.int64, steps_per_epoch=STEPS_PER_EPOCH, **settings):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        callback = CosineLearningRate(OptimizerConfig(**settings), steps_per_epoch)
        rate = callback.tensor(tf.constant(steps, dtype))
        assert rate.dtype == tf.float32
        assert rate.shape == np.shape(steps)
        return session.run(rate)


@pytest.mark.parametrize("base", [0.1, 0.01])
def test_all_steps_of_a_150_epoch_imagenet_run_bit_for_bit(base):
    table = original_table(base)
    assert table.shape == (750600,)
    np.testing.assert_array_equal(rates(np.arange(TOTAL_STEPS), lr=base), table)


def test_the_line_of_the_originals_log():
    """step:150120 … lr:0.09106: the step that made it 150120 is number 150119 from zero."""
    assert f"{rates(150119):7.5f}" == "0.09106"
    assert f"{rates(150120):7.5f}" == "0.09045"  # the next epoch


def test_zero_from_t_max_on():
    later = [TOTAL_STEPS, TOTAL_STEPS + 1, 2 * TOTAL_STEPS, 10 * TOTAL_STEPS + 17]
    for mode in ("epoch", "step"):
        np.testing.assert_array_equal(rates(later, lr_update=mode), np.zeros(4, np.float32))
    assert rates(TOTAL_STEPS - 1) > 0


def test_int32_and_int64_steps_agree():
    steps = np.arange(0, TOTAL_STEPS, 997)
    for mode in ("epoch", "step"):
        wide, narrow = (rates(steps, dtype, lr_update=mode) for dtype in (tf.int64, tf.int32))
        np.testing.assert_array_equal(wide, narrow)


@pytest.mark.parametrize(
    "settings",
    [
        {"lr_update": "step"},
        {"lr_update": "step", "warmup_epochs": 5.0},
        {"lr_update": "epoch", "warmup_epochs": 2.5},
        {"lr_update": "step", "T_max": 1, "lr": 3.0},
    ],
    ids=str,
)
def test_graph_and_host_agree_in_the_other_modes(settings):
    steps = np.arange(0, TOTAL_STEPS + 6000, 61)
    callback = CosineLearningRate(OptimizerConfig(**settings), STEPS_PER_EPOCH)
    host = np.array([callback.value(int(step)) for step in steps])
    base = settings.get("lr", 0.1)
    np.testing.assert_allclose(rates(steps, **settings), host, rtol=2e-6, atol=1e-12 * base)


def test_warm_up_rises_linearly_to_the_base_rate():
    warm_up = rates(np.arange(11), steps_per_epoch=5, warmup_epochs=2.0, lr=1.0, T_max=100)
    np.testing.assert_allclose(warm_up[:10], np.arange(1, 11) / 10, rtol=1e-6)
    cosine = (1 + math.cos(math.pi * 2 / 100)) / 2
    np.testing.assert_allclose(warm_up[10], cosine, rtol=1e-6)


def test_per_step_cosine_never_rises_and_starts_at_the_base_rate():
    table = rates(np.arange(TOTAL_STEPS), lr_update="step")
    assert table[0] == np.float32(0.1)
    assert np.all(np.diff(table) <= 0)
    assert table[-1] > 0
