"""How far training is and when it will end."""

from __future__ import annotations

import math
import sys
import threading
import time
from typing import Optional, TextIO

import tensorflow as tf
from tqdm import tqdm

from densenet_keras.schedule import RunPlan, StepLogs

_LINE_SECONDS = 30.0
_TICK_SECONDS = 1.0


class ProgressBar(tf.keras.callbacks.Callback):
    """A bar over all steps with the time left, loss and speed; a line now and then off a terminal.

    Until the first chunk ends, which may take minutes of compilation, a thread keeps the elapsed time
    moving.
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
        self._bar: Optional[tqdm] = None
        if interactive:
            self._bar = tqdm(
                total=plan.total_steps,
                initial=first_step,
                unit="step",
                dynamic_ncols=True,
                file=self._stream,
                desc="compiling",
            )
        self._started = self._last_line = time.monotonic()
        self._steps_timed = 0
        self._compiled = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def on_train_begin(self, logs: Optional[StepLogs] = None) -> None:
        self._started = self._last_line = time.monotonic()
        if self._bar is None:
            self._print("first step: compiling, this may take minutes")
        self._ticker.start()

    def on_train_batch_end(self, batch: int, logs: StepLogs) -> None:
        progress = logs.progress
        if not self._compiled.is_set():
            self._compiled.set()
            self._ticker.join()
            self._started = time.monotonic()
            if self._bar is not None:
                self._bar.unpause()  # the time left must not extrapolate compilation
                self._bar.set_description("training", refresh=False)
        else:
            self._steps_timed += progress.steps
        self._images_per_second = logs.get("images_per_second", self._images_per_second)
        if self._bar is not None:
            self._bar.set_postfix_str(self._figures(logs), refresh=False)
            self._bar.update(progress.steps)
            return
        now = time.monotonic()
        if now - self._last_line >= _LINE_SECONDS or progress.step == self._plan.total_steps:
            self._last_line = now
            self._print(self._line(logs, now - self._started))

    def close(self) -> None:
        """Ends the bar and its thread."""
        self._compiled.set()
        if self._ticker.is_alive():
            self._ticker.join()
        if self._bar is not None:
            self._bar.close()

    def _figures(self, logs: StepLogs) -> str:
        speed = "" if math.isnan(self._images_per_second) else f", {self._images_per_second:.1f} images/s"
        return f"loss {logs['loss']:.3f}{speed}"

    def _line(self, logs: StepLogs, seconds: float) -> str:
        step, total = logs.progress.step, self._plan.total_steps
        left = "?" if step < total else tqdm.format_interval(0)
        if self._steps_timed:
            left = tqdm.format_interval(seconds / self._steps_timed * (total - step))
        return f"{step}/{total} steps ({step / total:.0%}), {left} left, {self._figures(logs)}"

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def _tick(self) -> None:
        """Shows that the first chunk is still running."""
        while not self._compiled.wait(_TICK_SECONDS if self._bar is not None else _LINE_SECONDS):
            if self._bar is not None:
                self._bar.refresh()
            else:
                self._print(f"first step: compiling for {time.monotonic() - self._started:.0f} s")
