"""How far two checkpoints lie apart."""

from __future__ import annotations

import math
from typing import Callable, NamedTuple

import numpy as np

from densenet_keras.checkpoints import reader


class Distance(NamedTuple):
    """What two checkpoints differ in, over the floating-point variables that both hold."""

    compared: int  # variables
    different: int  # of them, not equal bit for bit
    largest: float  # absolute difference of two numbers; infinite where shapes differ
    norm: float  # Euclidean, of all differences
    first: str  # name of the first variable that differs; empty if none does

    @property
    def is_zero(self) -> bool:
        """Whether every number is the same."""
        return self.compared > 0 and self.different == 0


def everything(name: str) -> bool:
    """Takes every variable, see `distance`."""
    return True


def distance(first: str, second: str, wanted: Callable[[str], bool] = everything) -> Distance:
    """Compares checkpoints `first` and `second`.

    Args:
        wanted: which variables, by name.

    Raises:
        RunError: one cannot be read.
    """
    compared, different, largest, squares, example = 0, 0, 0.0, 0.0, ""
    with reader.reading(first) as one, reader.reading(second) as other:
        shared = set(one.get_variable_to_shape_map()) & set(other.get_variable_to_shape_map())
        for name in sorted(filter(wanted, shared)):
            mine, theirs = one.get_tensor(name), other.get_tensor(name)
            if not np.issubdtype(mine.dtype, np.floating):
                continue
            compared += 1
            if np.array_equal(mine, theirs):
                continue
            different += 1
            example = example or name
            if mine.shape != theirs.shape:
                largest = squares = math.inf
                continue
            apart = np.abs(mine.astype(np.float64) - theirs.astype(np.float64))
            largest, squares = max(largest, float(apart.max())), squares + float(np.sum(apart**2))
    return Distance(compared, different, largest, math.sqrt(squares), example)
