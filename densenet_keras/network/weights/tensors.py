"""What every reader of a file gives: named arrays, their shapes known before any is read."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, Mapping, NamedTuple, Tuple

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


def bfloat16(stored: np.ndarray) -> np.ndarray:
    """float32 of bfloat16 values, given as uint16: their bits are the upper half."""
    return (stored.astype(np.uint32) << 16).view(np.float32)


def several(names: Iterable[str], shown: int = 3) -> str:
    """The first few names, and how many more."""
    listed = list(names)
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more
