"""What TensorBoard shows of a run."""

from __future__ import annotations

import math
import os
from typing import Any, Dict, Mapping, Optional

import tensorflow as tf

from densenet_keras.schedule import StepLogs
from densenet_keras.training.evaluation import EvalResult

VALIDATION = "validation"  # the folder, in log_dir, of what evaluations write


class TensorBoard(tf.keras.callbacks.Callback):
    """Writes event files: to `log_dir` at each log line, to its folder `validation` at each evaluation.

    To TensorBoard these are two runs, and it shows a tag of both, `loss`, in one chart. The other tags
    are train/* and validation/*. Written from the host without nodes in the graph, which an accelerator
    could not run.
    """

    def __init__(
        self,
        log_dir: str,
        first_step: int,
        graph: Optional[tf.Graph] = None,
        settings: Optional[Mapping[str, Any]] = None,
    ) -> None:
        """Tells TensorBoard to forget what an earlier run wrote beyond `first_step`.

        Args:
            graph: shown as the graph.
            settings: shown as a table.
        """
        super().__init__()
        self._log_dir, self._first_step = log_dir, first_step
        self._train = self._writer(log_dir)
        self._validation: Optional[tf.compat.v1.summary.FileWriter] = None
        if graph is not None:
            self._train.add_graph(graph)
        if settings:
            self._train.add_summary(_table("settings", settings), first_step)
            self._train.flush()

    def on_rewind(self, step: int, words: str) -> None:
        """Tells TensorBoard to forget what follows `step`."""
        for writer in (self._train, self._validation):
            if writer is not None:
                _start(writer, step)

    def on_train_batch_end(self, batch: int, logs: StepLogs) -> None:
        if "images_per_second" not in logs:
            return
        scalars = {**logs.scalars(), "epoch": logs.progress.epoch}
        self._write(self._train, "train", scalars, logs.progress.step)

    def evaluation(self, step: int, epoch: float, result: EvalResult, time_utc: str) -> None:
        """The scalars of one evaluation; top1 and top5 in percent."""
        if self._validation is None:
            self._validation = self._writer(os.path.join(self._log_dir, VALIDATION))
        scalars = {"top1": result.top1, "top5": result.top5, "loss": result.loss}
        self._write(self._validation, VALIDATION, scalars, step)

    def close(self) -> None:
        """Closes the event files."""
        for writer in (self._train, self._validation):
            if writer is not None:
                writer.close()

    def _writer(self, folder: str) -> tf.compat.v1.summary.FileWriter:
        writer = tf.compat.v1.summary.FileWriter(folder)
        _start(writer, self._first_step)
        return writer

    @staticmethod
    def _write(
        writer: tf.compat.v1.summary.FileWriter, group: str, scalars: Dict[str, float], step: int
    ) -> None:
        summary = tf.compat.v1.Summary()
        for name, value in scalars.items():
            if not math.isnan(value):
                tag = name if name == "loss" else f"{group}/{name}"
                summary.value.add(tag=tag, simple_value=value)
        writer.add_summary(summary, step)
        writer.flush()


def _start(writer: tf.compat.v1.summary.FileWriter, step: int) -> None:
    start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
    writer.add_session_log(start, step + 1)


def _table(tag: str, settings: Mapping[str, Any]) -> tf.compat.v1.Summary:
    """Settings as a table for TensorBoard's plug-in for text, which takes Markdown."""
    rows = ["| setting | value |", "|---|---|"]
    rows += [f"| {name} | {value} |" for name, value in settings.items()]
    summary = tf.compat.v1.Summary()
    value = summary.value.add(tag=tag)
    value.metadata.plugin_data.plugin_name = "text"
    value.tensor.CopyFrom(tf.compat.v1.make_tensor_proto("\n".join(rows), dtype=tf.string))
    return summary
