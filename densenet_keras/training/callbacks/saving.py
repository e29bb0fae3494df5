"""Checkpoints in the course of training."""

from __future__ import annotations

from typing import Callable, Optional

import tensorflow as tf

from densenet_keras.schedule import RunPlan, StepLogs


class CheckpointSaver(tf.keras.callbacks.Callback):
    """Saves every `plan.save_interval_steps`, before evaluations, and where training ends for any reason.

    On every rank: reading the variables is a collective matter (see `checkpoint.Saver.save`).
    """

    def __init__(self, plan: RunPlan, save: Callable[[int], object]) -> None:
        """
        Args:
            save: saves the state of the given global step.
        """
        super().__init__()
        self._plan, self._save = plan, save
        self._saved_step: Optional[int] = None

    def on_train_batch_end(self, batch: int, logs: StepLogs) -> None:
        step = logs.progress.step
        if step % self._plan.save_interval_steps == 0 or self._plan.evaluates_at(step):
            self._save(step)
            self._saved_step = step

    def on_train_end(self, logs: StepLogs) -> None:
        # A callback that stops training may also have changed the weights, as EarlyStopping does with
        # restore_best_weights; what was saved at this step is then out of date.
        changed = self.model.stop_training
        if logs.progress.steps > 0 and (changed or self._saved_step != logs.progress.step):
            self._save(logs.progress.step)
            self._saved_step = logs.progress.step
