"""The log that people read."""

from __future__ import annotations

import math
import os
import sys
import time
from typing import Callable, Optional, Sequence

import tensorflow as tf
from tqdm import tqdm

from densenet_keras import files
from densenet_keras.schedule import StepLogs
from densenet_keras.training.callbacks.clock import local_time
from densenet_keras.training.callbacks.evaluation import TABLE_HEADER, table_row
from densenet_keras.training.evaluation import EvalResult

NEWS_SECONDS = 1.0  # between two looks for news, which ask a file system that may be far away


class Console(tf.keras.callbacks.Callback):
    """Writes the original's log lines to the terminal and to log_dir/log_name (appended to).

    A line ends with what the original's had not: the share of the time spent waiting for data, if the
    backend can tell, what the backend itself reports, and the clock time.
    """

    def __init__(self, log_dir: str, log_name: str, news: Callable[[], Sequence[str]] = lambda: ()) -> None:
        """
        Args:
            news: lines about what has happened elsewhere since it was called last.
        """
        super().__init__()
        self._news = news
        os.makedirs(log_dir, exist_ok=True)
        self._file = files.GrowingFile(os.path.join(log_dir, log_name))
        self._table_is_open = False
        self._looked_at = -NEWS_SECONDS

    def write(self, line: str) -> None:
        """A line of its own."""
        self._table_is_open = False
        self._put(line)

    def _put(self, line: str) -> None:
        if getattr(tqdm, "_instances", True):
            tqdm.write(f"{line}\n", end="")  # above a progress bar, not into it
        else:
            sys.stdout.write(f"{line}\n")
        self._file.append(f"{line}\n")

    def _write_news(self) -> None:
        self._looked_at = time.monotonic()
        for line in self._news():
            self.write(line)

    def on_train_begin(self, logs: Optional[StepLogs] = None) -> None:
        self._write_news()

    def on_train_end(self, logs: Optional[StepLogs] = None) -> None:
        self._write_news()

    def on_train_batch_end(self, batch: int, logs: StepLogs) -> None:
        if time.monotonic() - self._looked_at >= NEWS_SECONDS:
            self._write_news()
        if "images_per_second" in logs:
            self.write(f"{log_line(logs)}  {local_time('%H:%M:%S')}")

    def on_rewind(self, step: int, words: str) -> None:
        """Says why training goes on from `step` again."""
        self.write(words)

    def evaluation(self, step: int, epoch: float, result: EvalResult, time_utc: str) -> None:
        """A row of the evaluation table, under its header if another line came between."""
        self._write_news()
        if not self._table_is_open:
            self.write(TABLE_HEADER)
        self._table_is_open = True
        self._put(table_row(step, epoch, result, time_utc))
        if result.bad_records:
            self.write(
                f"{result.bad_records} of {result.images + result.bad_records} validation images are bad "
                "records: the figures are those of the others"
            )

    def close(self) -> None:
        """Closes the log file, with the last news in it."""
        self._write_news()
        self._file.close()


_SHOWN = ("images_per_second", "data_wait_fraction", "loss", "total_loss", "learning_rate")


def log_line(logs: StepLogs) -> str:
    """`logs` in the original's format, with further fields behind it."""
    progress = logs.progress
    line = (
        f"step:{progress.step:6d}  epoch:{progress.epoch:5.1f}  FPS:{logs['images_per_second']:7.1f}  "
        f"loss:{logs['loss']:6.3f}  total_loss:{logs['total_loss']:6.3f}  lr:{logs['learning_rate']:7.5f}"
    )
    waiting = logs["data_wait_fraction"]
    if math.isfinite(waiting):
        line += f"  data_wait:{waiting:6.1%}"
    for name, value in logs.scalars().items():
        if name not in _SHOWN:
            line += f"  {name}:{value:g}"
    return line
