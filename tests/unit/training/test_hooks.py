"""The list of callbacks is Keras' own to whoever looks on."""

import time

import pytest
import tensorflow as tf
from tensorflow.python.keras import callbacks as keras_callbacks

from densenet_keras.training import hooks
from tests.support.toy_training import Recorder

STEP_SECONDS = 0.2
# Seconds that the callbacks take at each batch in turn.
FAST, AT_THE_LIMIT, SLOW = [0.0] * 25, [0.1] * 25, [0.5] * 25
PATTERNS = {
    "fast": FAST,
    "at the limit": AT_THE_LIMIT,
    "slow": SLOW,
    "slow next to a fast step": [0.15] * 25,
    "slow once": [*FAST, 0.5, *FAST],
    "slow from some batch on": [*FAST, *SLOW],
    "slow until some batch": [*SLOW, *FAST],
    "every other slow": [0.0, 0.5] * 12,
    "two of three slow": [0.0, 0.5, 0.5] * 8,
}
QUIET = ("fast", "at the limit", "slow next to a fast step", "slow once")


@pytest.fixture
def clock(monkeypatch):
    """A clock that only what is measured moves."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def warnings_of(kind, clock, monkeypatch, begins, ends):
    """What a list of callbacks warns of, and after which batch, over two epochs."""
    said, batch = [], 0
    for module in (keras_callbacks.logging, tf.compat.v1.logging):
        monkeypatch.setattr(module, "warning", lambda *words: said.append((batch, *words)))

    class Takes(tf.keras.callbacks.Callback):
        def on_train_batch_begin(self, number, logs=None):
            clock[0] += begins[number]

        def on_train_batch_end(self, number, logs=None):
            clock[0] += ends[number]

    called = kind([Takes()])
    for epoch in range(2):
        called.on_epoch_begin(epoch)
        for batch in range(len(ends)):
            called.on_train_batch_begin(batch, {"batch": batch})
            clock[0] += STEP_SECONDS
            called.on_train_batch_end(batch, {"batch": batch})
    return said


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("which", ["begin", "end"])
def test_slow_callbacks_are_warned_of_where_keras_does(name, which, clock, monkeypatch):
    takes = PATTERNS[name]
    nothing = [0.0] * len(takes)
    seconds = (takes, nothing) if which == "begin" else (nothing, takes)
    ours = warnings_of(hooks.Hooks, clock, monkeypatch, *seconds)
    theirs = warnings_of(keras_callbacks.CallbackList, clock, monkeypatch, *seconds)
    assert ours == theirs
    assert which == "begin" or bool(ours) == (name not in QUIET)


def test_fast_callbacks_cost_no_median(monkeypatch):
    monkeypatch.setattr(hooks.np, "median", lambda values: pytest.fail("a median of fast calls"))
    recorder = Recorder()
    called = hooks.Hooks([recorder])
    called.on_train_batch_begin(0, {"batch": 0})
    called.on_train_batch_end(0, {"batch": 0})
    assert [name for name, _, _ in recorder.calls] == ["on_batch_begin", "on_batch_end"]
