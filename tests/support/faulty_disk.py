"""A disk on which one operation fails: the n-th of its kind below a folder, or that and all behind it.

What Python writes through its own file objects cannot be reached so; a full file system does that.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import os
from typing import Any, Callable, Dict, Iterator
from unittest import mock

from tests.support.paths import ROOT

VARIABLE = "DENSENET_KERAS_TEST_FAULT"
FOLDER = os.path.join(ROOT, "tests", "support", "faults")  # with it in PYTHONPATH, VARIABLE has effect
ERRORS = ("EIO", "ENOSPC", "EROFS", "EDQUOT", "EACCES", "EINVAL", "ESTALE")
_PARENT = "DENSENET_KERAS_PARENT"  # set in ranks


def _of_descriptor(descriptor: int, *given: Any) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


def _of_first(path: Any, *given: Any) -> str:
    return os.fspath(path) if isinstance(path, (str, bytes, os.PathLike)) else _of_descriptor(path)


def _if_written(path: Any, mode: Any = "r", *given: Any) -> str:
    writes = mode & (os.O_WRONLY | os.O_RDWR) if isinstance(mode, int) else set(mode) & set("wax+")
    return _of_first(path) if writes else ""


# Each with what tells the path that a call is about; empty if it does not count.
OPERATIONS: Dict[str, Callable[..., str]] = {
    "fsync": _of_descriptor, "replace": _of_first, "rename": _of_first, "mkdir": _of_first,
    "remove": _of_first,
    "pwrite": _of_descriptor, "ftruncate": _of_descriptor, "fchmod": _of_descriptor, "listdir": _of_first,
    "stat": _of_first, "open": _if_written,
}  # fmt: skip


def described(operation: str, number: int, error: str, lasts: bool, under: str, rank: bool) -> Dict[str, str]:
    """The environment in which the launcher, or its ranks, meet the fault; see `failing`."""
    text = "\t".join((operation, str(number), error, str(int(lasts)), under, str(int(rank))))
    return {VARIABLE: text, "PYTHONPATH": os.pathsep.join((FOLDER, ROOT))}


def arm_from_environment() -> None:
    """Makes the fault of `described` in this process, for good."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        return
    operation, number, error, lasts, under, rank = text.split("\t")
    if (_PARENT in os.environ) == bool(int(rank)):
        failing(operation, int(number), error, bool(int(lasts)), under).__enter__()


@contextlib.contextmanager
def failing(operation: str, number: int, error: str, lasts: bool, under: str) -> Iterator[Callable[[], int]]:
    """While the body runs, call `number` (from 0) of `operation` on a path below `under` raises `error`.

    Args:
        lasts: whether all later ones fail as well.

    Returns:
        How many calls there were.
    """
    count = 0
    real = builtins.open if operation == "open" else getattr(os, operation)
    real_low = os.open
    path_of = OPERATIONS[operation]
    code = getattr(errno, error)

    def checked(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            nonlocal count
            path = ""
            with contextlib.suppress(OSError):
                path = path_of(*given, *([named["mode"]] if "mode" in named else []))
            if isinstance(path, str) and path.startswith(under):
                count += 1
                if count - 1 == number or (lasts and count > number):
                    raise OSError(code, os.strerror(code), path)
            return function(*given, **named)

        return call

    with contextlib.ExitStack() as stack:
        if operation == "open":
            stack.enter_context(mock.patch.object(builtins, "open", checked(real)))
            stack.enter_context(mock.patch.object(os, "open", checked(real_low)))
        else:
            stack.enter_context(mock.patch.object(os, operation, checked(real)))
        yield lambda: count
