"""How far an export is from the checkpoint, and whether that is near enough."""

from __future__ import annotations

from typing import Dict, NamedTuple

import numpy as np

from densenet_keras.errors import RunError
from densenet_keras.exports.formats import FLOAT16

# Of the largest logit.
ALLOWED = 1e-4
ALLOWED_FLOAT16 = 1e-2


class Difference(NamedTuple):
    """The largest difference of any logit over all ways into an export.

    Attributes:
        largest: divided by the largest logit of the checkpoint.
        way: into the export, where it is.
        allowed: what it must be below.
    """

    largest: float
    way: str
    allowed: float

    @property
    def words(self) -> str:
        """The difference, said."""
        return (
            f"the largest difference is {self.largest:.1e} of the largest logit, by way of {self.way} "
            f"(allowed: {self.allowed:.0e})"
        )


def compare(expected: np.ndarray, found: Dict[str, np.ndarray], precision: str) -> Difference:
    """The largest difference between the checkpoint's logits and an export's, by any way in.

    Raises:
        RunError: it is too large, an export's top-1 is another class (unless the checkpoint's own best two
            are nearer to each other than the difference allowed), or the shapes differ.
    """
    allowed = ALLOWED_FLOAT16 if precision == FLOAT16 else ALLOWED
    scale = float(np.abs(expected).max()) or 1.0
    worst = Difference(-1.0, "", allowed)
    for way, logits in found.items():
        if logits.shape != expected.shape:
            raise RunError(
                f"the export gives logits of shape {logits.shape} ({way}) where the checkpoint gives "
                f"{expected.shape}; nothing is kept of it"
            )
        # Compared as "not below", so that a NaN is refused too.
        largest = float(np.abs(logits - expected).max()) / scale
        if not largest < allowed:
            raise RunError(
                f"the export's logits ({way}) differ from the checkpoint's by {largest:.2g} of the largest "
                f"logit, which must be below {allowed:.0e}; nothing is kept of it"
            )
        if np.any(_another_class(expected, logits, allowed * scale)):
            raise RunError(f"the export's top-1 ({way}) is another class; nothing is kept of it")
        worst = max(worst, Difference(largest, way, allowed))
    return worst


def _another_class(expected: np.ndarray, logits: np.ndarray, near: float) -> np.ndarray:
    """For each picture, whether its best class is another one, and not by a tie."""
    chosen = np.take_along_axis(expected, logits.argmax(axis=1)[:, np.newaxis], axis=1)[:, 0]
    different: np.ndarray = expected.max(axis=1) - chosen > near
    return different
