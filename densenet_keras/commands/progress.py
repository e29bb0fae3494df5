"""How far a command is that works through many things: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from typing import Optional, TextIO

from tqdm import tqdm

from densenet_keras.terminal import Bar

LINE_SECONDS = 30.0


class Progress:
    """Call it with (done, total) as often as you like; close it in the end, also after an error.

    Args:
        what: what is counted, such as "pictures".
        scale: units of `done` in one of `what`.
    """

    def __init__(self, what: str, scale: float = 1.0, stream: Optional[TextIO] = None) -> None:
        self._what, self._scale = what, scale
        self._stream = stream or sys.stderr
        self._interactive = self._stream.isatty()
        self._bar: Optional[Bar] = None
        self._first: Optional[int] = None  # what was there already, which says nothing of the speed
        self._started = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if self._interactive:
            self._move_bar(done, total)
            return
        now = time.monotonic()
        if self._first is None:
            self._first, self._started = done, now
        if now - self._last >= LINE_SECONDS:
            self._last = now
            print(self._line(done, total, now - self._started), file=self._stream, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()

    def _move_bar(self, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = Bar(
                total=total / self._scale, initial=done / self._scale, unit=f" {self._what}", unit_scale=True,
                file=self._stream,
            )  # fmt: skip
        self._bar.update(done / self._scale - self._bar.n)

    def _line(self, done: int, total: int, seconds: float) -> str:
        speed = (done - (self._first or 0)) / max(seconds, 1e-9)
        left = tqdm.format_interval((total - done) / speed) if speed else "?"
        return (
            f"{done / self._scale:,.0f} of {total / self._scale:,.0f} {self._what} ({done / total:.0%}), "
            f"{speed / self._scale:,.0f} a second, {left} left"
        )
