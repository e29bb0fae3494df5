"""What TensorBoard shows of a run."""

from __future__ import annotations

import math
import os
import socket
import time
from typing import Any, List, Mapping, Optional

import tensorflow as tf

from densenet_keras import files
from densenet_keras.data import tfrecord
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
        self._train = self._file(log_dir)
        self._validation: Optional[_EventFile] = None
        self._scalars = {group: _Scalars(group) for group in ("train", VALIDATION)}
        if graph is not None:
            self._train.write(graph_def=graph.as_graph_def(add_shapes=True).SerializeToString())
        if settings:
            self._train.write(step=first_step, summary=_table("settings", settings))

    def on_rewind(self, step: int, words: str) -> None:
        """Tells TensorBoard to forget what follows `step`."""
        for file in (self._train, self._validation):
            if file is not None:
                _start(file, step)

    def on_train_batch_end(self, batch: int, logs: StepLogs) -> None:
        if "images_per_second" not in logs:
            return
        scalars = {**logs.scalars(), "epoch": logs.progress.epoch}
        self._train.add(self._scalars["train"].event(logs.progress.step, scalars))

    def evaluation(self, step: int, epoch: float, result: EvalResult, time_utc: str) -> None:
        """The scalars of one evaluation; top1 and top5 in percent."""
        if self._validation is None:
            self._validation = self._file(os.path.join(self._log_dir, VALIDATION))
        scalars = {"top1": result.top1, "top5": result.top5, "loss": result.loss}
        self._validation.add(self._scalars[VALIDATION].event(step, scalars))

    def close(self) -> None:
        """Closes the event files."""
        for file in (self._train, self._validation):
            if file is not None:
                file.close()

    def _file(self, folder: str) -> _EventFile:
        file = _EventFile(folder)
        _start(file, self._first_step)
        return file


class _Scalars:
    """Events of the scalars of one group: one that is filled anew while their names stay the same.

    Making an Event takes several times as long, at every line.
    """

    def __init__(self, group: str) -> None:
        self._group = group
        self._event = tf.compat.v1.Event()
        self._names: List[str] = []

    def event(self, step: int, scalars: Mapping[str, float]) -> tf.compat.v1.Event:
        """The event of `step`, until the next call; without what is not a number."""
        shown = {name: value for name, value in scalars.items() if not math.isnan(value)}
        summary = self._event.summary
        if list(shown) != self._names:
            self._names = list(shown)
            summary.Clear()
            for name in shown:
                summary.value.add(tag=name if name == "loss" else f"{self._group}/{name}")
        for entry, value in zip(summary.value, shown.values()):
            entry.simple_value = value
        self._event.step = step
        return self._event


class _EventFile:
    """A new event file in `folder`: whole events, each at once in the file.

    TensorFlow's own writer loses events on a full disk without a word. The format is TFRecord with an
    Event in each record, the first one naming the version (tensorflow/core/util/event.proto).
    """

    def __init__(self, folder: str) -> None:
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = files.GrowingFile(os.path.join(folder, name))
        self.write(file_version="brain.Event:2")

    def write(self, **fields: Any) -> None:
        """Appends an Event with these fields."""
        self.add(tf.compat.v1.Event(**fields))

    def add(self, event: tf.compat.v1.Event) -> None:
        """Appends `event`, as of now."""
        event.wall_time = time.time()
        self._file.append_bytes(tfrecord.frame(event.SerializeToString()))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _start(file: _EventFile, step: int) -> None:
    start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
    file.write(step=step + 1, session_log=start)


def _table(tag: str, settings: Mapping[str, Any]) -> tf.compat.v1.Summary:
    """Settings as a table for TensorBoard's plug-in for text, which takes Markdown."""
    rows = ["| setting | value |", "|---|---|"]
    rows += [f"| {name} | {value} |" for name, value in settings.items()]
    summary = tf.compat.v1.Summary()
    value = summary.value.add(tag=tag)
    value.metadata.plugin_data.plugin_name = "text"
    value.tensor.CopyFrom(tf.compat.v1.make_tensor_proto("\n".join(rows), dtype=tf.string))
    return summary
