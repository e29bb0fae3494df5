"""How far training is and when it will end."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from typing import ContextManager, Dict, Optional, TextIO

import tensorflow as tf
from tqdm import tqdm

from densenet_keras.schedule import RunPlan, StepLogs
from densenet_keras.terminal import Bar, compiling

_LINE_SECONDS = 30.0


class ProgressBar(tf.keras.callbacks.Callback):
    """A bar over all steps with the time left, loss and speed; a line now and then off a terminal.

    Until the first chunk ends, and while a graph is compiled later, which may take minutes, a thread keeps
    the elapsed time moving. The time left follows from the steps that were timed.
    """

    def __init__(
        self, plan: RunPlan, first_step: int, interactive: bool, stream: Optional[TextIO] = None
    ) -> None:
        """
        Args:
            interactive: draw a bar; otherwise print a line each half minute.
            stream: where to; default: stderr.
        """
        super().__init__()
        self._plan, self._first_step = plan, first_step
        self._stream = stream or sys.stderr
        self._images_per_second = math.nan
        self._bar: Optional[Bar] = None
        if interactive:
            self._bar = Bar(
                total=plan.total_steps,
                initial=first_step,
                file=self._stream,
                desc="preparing",
                bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
            )
            self._bar.measured_rate = 0.0
        self._last_line = time.monotonic()
        self._steps_timed, self._seconds_timed = 0, 0.0
        self._begun = self._trained = False
        self._first_chunk = contextlib.ExitStack()  # what shows that it is going on
        self._graphs = 0  # compiled

    def on_train_batch_begin(self, batch: int, logs: Optional[Dict[str, int]] = None) -> None:
        if self._begun:
            return
        self._begun = True
        self._last_line = time.monotonic()
        self._first_chunk.enter_context(compiling("first step", self._bar, self._stream))

    def compiling(self, what: str) -> ContextManager[None]:
        """Shows while the body runs that a device compiles another graph; the first is shown already."""
        self._graphs += 1
        if self._graphs == 1:
            return contextlib.nullcontext()
        self._first_chunk.close()
        return compiling(what, self._bar, self._stream)

    def on_rewind(self, step: int, words: str) -> None:
        """Puts the bar back to `step`."""
        if self._bar is not None:
            self._bar.n = step

    def on_train_batch_end(self, batch: int, logs: StepLogs) -> None:
        progress = logs.progress
        self._images_per_second = logs.get("images_per_second", self._images_per_second)
        if progress.timed_steps:  # the time left must not extrapolate compilation
            self._steps_timed += progress.timed_steps
            self._seconds_timed += progress.timed_seconds
        if not self._trained:
            self._trained = True
            self._first_chunk.close()
            if self._bar is not None:
                self._bar.set_description("training", refresh=False)
                self._show(self._bar, logs)
                self._bar.refresh()  # tqdm might not draw before the next chunk, minutes later
                return
        if self._bar is not None:
            self._show(self._bar, logs)
            return
        now = time.monotonic()
        if now - self._last_line >= _LINE_SECONDS or progress.step == self._plan.total_steps:
            self._last_line = now
            self._print(self._line(logs))

    def close(self) -> None:
        """Ends the bar and its thread."""
        self._first_chunk.close()
        if self._bar is not None:
            self._bar.close()

    def _show(self, bar: Bar, logs: StepLogs) -> None:
        if self._seconds_timed:
            bar.measured_rate = self._steps_timed / self._seconds_timed
        bar.set_postfix_str(self._figures(logs), refresh=False)
        bar.update(logs.progress.steps)

    def _figures(self, logs: StepLogs) -> str:
        speed = "" if math.isnan(self._images_per_second) else f", {self._images_per_second:.1f} images/s"
        return f"loss {logs['loss']:.3f}{speed}"

    def _line(self, logs: StepLogs) -> str:
        step, total = logs.progress.step, self._plan.total_steps
        left = "?" if step < total else tqdm.format_interval(0)
        if self._steps_timed:
            left = tqdm.format_interval(self._seconds_timed / self._steps_timed * (total - step))
        return f"{step}/{total} steps ({step / total:.0%}), {left} left, {self._figures(logs)}"

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)
