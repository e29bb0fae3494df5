"""How fast training is, and how much of that is waiting for data."""

from __future__ import annotations

import math

import tensorflow as tf

from densenet_keras.schedule import RunPlan, StepLogs


class Throughput(tf.keras.callbacks.Callback):
    """Adds `images_per_second` and `data_wait_fraction` to the logs where a log line is due.

    Both cover the steps since the line before and count only time spent in steps: not compilation,
    saving, evaluation or callbacks. images_per_second is over all ranks; it is NaN if every step since
    then came with compilation, as data_wait_fraction is if the backend cannot tell.
    """

    def __init__(self, plan: RunPlan) -> None:
        super().__init__()
        self._plan = plan
        self._clear()

    def _clear(self) -> None:
        self._steps, self._seconds, self._data_wait_seconds = 0, 0.0, 0.0

    def on_rewind(self, step: int, words: str) -> None:
        """Begins to count anew."""
        self._clear()

    def on_train_batch_end(self, batch: int, logs: StepLogs) -> None:
        progress = logs.progress
        if progress.timed_steps:
            self._steps += progress.timed_steps
            self._seconds += progress.timed_seconds
            self._data_wait_seconds += progress.data_wait_seconds
        if not self._plan.logs_at(progress.step) or logs.interrupted:  # lines do not depend on signals
            return
        timed = self._seconds > 0.0
        images = self._steps * self._plan.global_batch
        logs["images_per_second"] = images / self._seconds if timed else math.nan
        logs["data_wait_fraction"] = self._data_wait_seconds / self._seconds if timed else math.nan
        self._clear()
