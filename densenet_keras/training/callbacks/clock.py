"""The local time, as lines of a log end with it."""

from __future__ import annotations

import functools
import time


def local_time(form: str) -> str:
    """The time now as `time.strftime` writes it in `form`, to the second."""
    return _written(form, int(time.time()))


@functools.lru_cache(maxsize=8)  # there may be hundreds of lines in a second
def _written(form: str, second: int) -> str:
    return time.strftime(form, time.localtime(second))
