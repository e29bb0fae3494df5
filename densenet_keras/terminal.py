"""How wide the terminal is that a stream ends at, progress bars that keep to it, and signs of life."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, TextIO

from tqdm import tqdm

DEVICE = "DENSENET_KERAS_TERMINAL_DEVICE"  # of the terminal at the other end of a rank's pipe

_TICK_SECONDS = 1.0
_LINE_SECONDS = 30.0


def columns(stream: Any, environ: Mapping[str, str] = os.environ) -> Optional[int]:
    """Columns of the terminal that `stream` ends at, as of now: it may be resized at any time.

    None if there is none.

    A rank writes into a pipe; the launcher, which owns the terminal, names it in the environment.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no file, closed, no terminal
        width = os.get_terminal_size(stream.fileno()).columns
        if width:
            return width
    device = environ.get(DEVICE)
    if device:
        with contextlib.suppress(OSError):
            descriptor = os.open(device, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
            try:
                width = os.get_terminal_size(descriptor).columns
            finally:
                os.close(descriptor)
            if width:
                return width
    with contextlib.suppress(ValueError):
        return int(environ.get("COLUMNS", "")) or None
    return None


class Bar(tqdm):
    """A tqdm that asks for the width at every draw and leaves the last column free.

    tqdm asks once, or by variables that 4.68 and newer ignore; a line that reaches the last column
    wraps, and then each draw leaves a torn line behind.

    Attributes:
        measured_rate: units a second to tell the time left from, 0 if unknown; None leaves it to tqdm.
    """

    measured_rate: Optional[float] = None

    @property
    def format_dict(self) -> Dict[str, Any]:
        """What the line is made from."""
        width = columns(self.fp)
        values = dict(super().format_dict, ncols=width and max(width - 1, 1))
        if self.measured_rate is not None:
            values["rate"] = self.measured_rate
        return values

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        """Draws a line over the one before, however long that was and wide the terminal is now."""
        last = [0]

        def draw(line: str) -> None:
            # After the window shrank, spaces beyond its width would begin another line.
            width = columns(file)
            blank = max((last[0] if width is None else min(last[0], width)) - len(line), 0)
            file.write("\r" + line + " " * blank)
            file.flush()
            last[0] = len(line)

        return draw


@contextlib.contextmanager
def compiling(what: str, bar: Optional[Bar], stream: TextIO) -> Iterator[None]:
    """Shows while the body runs, for minutes on a device, that a graph is compiled and for how long already.

    Args:
        what: what the graph is for, such as "evaluation".
        bar: says so in the place of its description; None for lines on `stream`, one each half minute.
    """
    started = time.monotonic()
    done = threading.Event()

    def tick() -> None:
        while not done.wait(_LINE_SECONDS if bar is None else _TICK_SECONDS):
            if bar is not None:
                bar.refresh()
            else:
                print(f"{what}: compiling for {time.monotonic() - started:.0f} s", file=stream, flush=True)

    before = ""
    if bar is None:
        print(f"{what}: compiling, this may take minutes", file=stream, flush=True)
    else:
        before = bar.desc
        bar.set_description(f"{what}: compiling")
    ticker = threading.Thread(target=tick, name="compiling", daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
        if bar is not None:
            bar.set_description_str(before, refresh=False)
