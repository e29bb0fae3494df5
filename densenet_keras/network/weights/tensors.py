"""What every reader of a file gives: named arrays, their shapes known before any is read."""

from __future__ import annotations

import contextlib
import struct
import zipfile
import zlib
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, NamedTuple, Tuple

import numpy as np

from densenet_keras.errors import UsageError

Shape = Tuple[int, ...]


class Tensors(NamedTuple):
    """The named arrays of a file.

    Attributes:
        format: of the file, for people.
        shapes: of every array that the file holds.
        read: the array of a name, as stored.
        facts: what the file says beside them: `bn_epsilon` and `bn_momentum` where it describes its network.
    """

    format: str
    shapes: Dict[str, Shape]
    read: Callable[[str], np.ndarray]
    facts: Mapping[str, Any] = {}


def damaged(path: str, why: str) -> UsageError:
    """The error for a file that starts like one of its format and goes on otherwise."""
    return UsageError(f"{path} is damaged or incomplete: {why}; fetch or write it again")


# What parsers raise on bytes that are not what they take them for; deep JSON is a RuntimeError.
_RAISED_BY_DAMAGE = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, TypeError,
    ValueError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@contextlib.contextmanager
def reading(path: str, part: str = "") -> Iterator[None]:
    """Turns what reading `path` raises in the body into `damaged`.

    Args:
        part: of the file, for the message.
    """
    try:
        yield
    except _RAISED_BY_DAMAGE as error:
        where = f"{part}: " if part else ""
        raise damaged(path, f"{where}{str(error) or type(error).__name__}") from error


def bfloat16(stored: np.ndarray) -> np.ndarray:
    """float32 of bfloat16 values, given as uint16: their bits are the upper half."""
    return (stored.astype(np.uint32) << 16).view(np.float32)


def several(names: Iterable[str], shown: int = 3) -> str:
    """The first few names, and how many more."""
    listed = list(names)
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more
