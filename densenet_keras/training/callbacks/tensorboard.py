"""What TensorBoard shows of a run."""

from __future__ import annotations

import math
import os
import socket
import time
from typing import Any, List, Mapping, NamedTuple, Optional, Sequence

import tensorflow as tf

from densenet_keras import files
from densenet_keras.data import tfrecord
from densenet_keras.schedule import StepLogs
from densenet_keras.training.evaluation import EvalResult

VALIDATION = "validation"  # the folder, in log_dir, of what evaluations write
HELD_SECONDS = 1.0  # between two writings of log lines


class TensorBoard(tf.keras.callbacks.Callback):
    """Writes event files: to `log_dir` for each log line, to its folder `validation` for each evaluation.

    Log lines that come many in a second are written together, with the first that comes a second or more
    after the last writing. A kill costs those since then. `flush` is to be called before a checkpoint is
    saved, so that none is missing of the steps that a run which goes on does not repeat.

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
            graph: shown as the graph; written after the first steps, which would wait for it.
            settings: shown as a table.
        """
        super().__init__()
        self._log_dir, self._first_step = log_dir, first_step
        self._train = self._file(log_dir, "train")
        self._validation: Optional[_EventFile] = None
        self._held: List[_Line] = []
        self._written_at = -HELD_SECONDS
        self._graph = graph
        if settings:
            self._train.write(step=first_step, summary=_table("settings", settings))

    def on_rewind(self, step: int, words: str) -> None:
        """Tells TensorBoard to forget what follows `step`."""
        self.flush()
        for file in (self._train, self._validation):
            if file is not None:
                _start(file, step)

    def on_train_batch_end(self, batch: int, logs: StepLogs) -> None:
        if self._graph is not None:
            self._train.write(graph_def=self._graph.as_graph_def(add_shapes=True).SerializeToString())
            self._graph = None
        if "images_per_second" not in logs:
            return
        scalars = {**logs.scalars(), "epoch": logs.progress.epoch}
        self._held.append(_Line(time.time(), logs.progress.step, scalars))
        if time.monotonic() - self._written_at >= HELD_SECONDS:
            self.flush()

    def on_epoch_end(self, epoch: int, logs: StepLogs) -> None:
        self.flush()

    def evaluation(self, step: int, epoch: float, result: EvalResult, time_utc: str) -> None:
        """The scalars of one evaluation; top1 and top5 in percent."""
        if self._validation is None:
            self._validation = self._file(os.path.join(self._log_dir, VALIDATION), VALIDATION)
        scalars = {"top1": result.top1, "top5": result.top5, "loss": result.loss}
        self._validation.scalars([_Line(time.time(), step, scalars)])

    def flush(self) -> None:
        """Writes the log lines that are held."""
        if self._held:
            self._train.scalars(self._held)
            self._held = []
            self._written_at = time.monotonic()

    def close(self) -> None:
        """Closes the event files."""
        self.flush()
        for file in (self._train, self._validation):
            if file is not None:
                file.close()

    def _file(self, folder: str, group: str) -> _EventFile:
        file = _EventFile(folder, group)
        _start(file, self._first_step)
        return file


class _Line(NamedTuple):
    """What a log line or an evaluation shows."""

    wall_time: float
    step: int
    scalars: Mapping[str, float]


class _Scalars:
    """Events of the scalars of one group: one that is filled anew while their names stay the same.

    Making an Event takes several times as long, at every line.
    """

    def __init__(self, group: str) -> None:
        self._group = group
        self._event = tf.compat.v1.Event()
        self._names: List[str] = []

    def event(self, line: _Line) -> tf.compat.v1.Event:
        """The event of `line`, until the next call; without what is not a number."""
        shown = {name: value for name, value in line.scalars.items() if not math.isnan(value)}
        summary = self._event.summary
        if list(shown) != self._names:
            self._names = list(shown)
            summary.Clear()
            for name in shown:
                summary.value.add(tag=name if name == "loss" else f"{self._group}/{name}")
        for entry, value in zip(summary.value, shown.values()):
            entry.simple_value = value
        self._event.wall_time, self._event.step = line.wall_time, line.step
        return self._event


class _EventFile:
    """A new event file in `folder`: whole events, at once in the file.

    TensorFlow's own writer loses events on a full disk without a word. The format is TFRecord with an
    Event in each record, the first one naming the version (tensorflow/core/util/event.proto).
    """

    def __init__(self, folder: str, group: str) -> None:
        """
        Args:
            group: begins the tags of scalars.
        """
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = files.GrowingFile(os.path.join(folder, name))
        self._scalars = _Scalars(group)
        self.write(file_version="brain.Event:2")

    def write(self, **fields: Any) -> None:
        """Appends an Event with these fields."""
        event = tf.compat.v1.Event(wall_time=time.time(), **fields)
        self._file.append_bytes(tfrecord.frame(event.SerializeToString()))

    def scalars(self, lines: Sequence[_Line]) -> None:
        """Appends an Event for each line, all of them in one go."""
        events = (self._scalars.event(line).SerializeToString() for line in lines)
        self._file.append_bytes(b"".join(map(tfrecord.frame, events)))

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
