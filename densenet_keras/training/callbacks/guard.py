"""Stops training whose loss is no longer a number."""

from __future__ import annotations

import math

import tensorflow as tf

from densenet_keras.errors import RunError
from densenet_keras.schedule import StepLogs


class StopOnNonFinite(tf.keras.callbacks.Callback):
    """Ends the run when a loss is NaN or infinite, before anything is saved.

    Losses are averaged over ranks in the step, so all ranks end alike, at the same step.

    The loss of a step that the backend skipped for overflow may be anything: that step changed no
    weight, and the backend itself limits how many are skipped. It tells so by `skipped_steps` in the
    logs, a count since the start.
    """

    def __init__(self) -> None:
        super().__init__()
        self._skipped_steps = 0.0

    def on_train_batch_end(self, batch: int, logs: StepLogs) -> None:
        """
        Raises:
            RunError: a scalar whose name ends in "loss" is not finite.
        """
        skipped_before, self._skipped_steps = self._skipped_steps, logs.get("skipped_steps", 0.0)
        if self._skipped_steps > skipped_before:
            return
        for name, value in logs.items():
            if name.endswith("loss") and not math.isfinite(value):
                raise RunError(
                    f"{name} is {value} at step {logs.progress.step}; training has diverged and nothing was "
                    "saved since the last checkpoint. Run the same command again with a lower --lr or with "
                    "--warmup_epochs 5 to continue from that checkpoint; in mixed precision try --loss_scale"
                )
