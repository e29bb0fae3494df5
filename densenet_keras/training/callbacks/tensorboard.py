"""Scalars for TensorBoard."""

from __future__ import annotations

import math
from typing import Dict

import tensorflow as tf

from densenet_keras.schedule import StepLogs
from densenet_keras.training.evaluation import EvalResult


class TensorBoard(tf.keras.callbacks.Callback):
    """Writes event files to `log_dir`: train/* at each log line, validation/* at each evaluation.

    Written from the host without nodes in the graph, which an accelerator could not run.
    """

    def __init__(self, log_dir: str, first_step: int) -> None:
        """Tells TensorBoard to forget what an earlier run wrote beyond `first_step`."""
        super().__init__()
        self._writer = tf.compat.v1.summary.FileWriter(log_dir)
        start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        self._writer.add_session_log(start, first_step + 1)

    def on_train_batch_end(self, batch: int, logs: StepLogs) -> None:
        if "images_per_second" not in logs:
            return
        self._write("train", {**logs.scalars(), "epoch": logs.progress.epoch}, logs.progress.step)

    def evaluation(self, step: int, epoch: float, result: EvalResult, time_utc: str) -> None:
        """The scalars of one evaluation; top1 and top5 in percent."""
        self._write("validation", {"top1": result.top1, "top5": result.top5, "loss": result.loss}, step)

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()

    def _write(self, group: str, scalars: Dict[str, float], step: int) -> None:
        summary = tf.compat.v1.Summary()
        for name, value in scalars.items():
            if not math.isnan(value):
                summary.value.add(tag=f"{group}/{name}", simple_value=value)
        self._writer.add_summary(summary, step)
        self._writer.flush()
