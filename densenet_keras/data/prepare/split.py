"""Which pictures are held out for validation, decided for each by its own name."""

from __future__ import annotations

import hashlib

import numpy as np

from densenet_keras.data.prepare.listing import SPLITS, UNDECIDED, Listing
from densenet_keras.data.records import TRAIN, VALIDATION

_TRAIN, _VALIDATION = SPLITS.index(TRAIN), SPLITS.index(VALIDATION)


def decide(listing: Listing, share: float, seed: int) -> np.ndarray:
    """The split of every row, [n] int8: as listed, and for the undecided ones drawn.

    A picture is held out if a hash of the seed and its path falls below `share`, so that pictures added
    later move none of those that were there. In a class where that would leave one side empty, the one
    picture with the lowest (or highest) hash changes sides; a class of one picture is for training.

    Args:
        share: of each class, greater than 0 and less than 1.
    """
    split = listing.split.copy()
    rows = np.flatnonzero(split == UNDECIDED)
    if not len(rows):
        return split
    draws = np.array([_draw(listing.name(int(row)), seed) for row in rows], np.float64)
    labels = listing.label[rows]
    held_out = draws < share
    order = np.lexsort((draws, labels))
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    for members in np.split(order, starts[1:]):
        if len(members) < 2:
            held_out[members] = False
        elif held_out[members].all():
            held_out[members[-1]] = False
        elif not held_out[members].any():
            held_out[members[0]] = True
    split[rows] = np.where(held_out, _VALIDATION, _TRAIN)
    return split


def _draw(name: bytes, seed: int) -> float:
    """Uniform in [0, 1), from seed and name alone."""
    digest = hashlib.blake2b(name, digest_size=7, key=b"%d" % seed).digest()
    return int.from_bytes(digest, "big") / float(1 << 56)
