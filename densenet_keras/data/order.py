"""Which record stands where, in training and in evaluation: pure functions of (seed, step, rank).

Training: global position p = step * global_batch + skipped + rank * batch_size + i, where skipped is zero
unless the run went back (see `Stream`); pass = p // records; the
record is the one that the pass's permutation puts at p % records. Nothing is dropped at the end of a
pass, and the order over all ranks is the same for any number of them. Where that record is bad, others
are tried in the order that `substitute` gives; all other places keep theirs.

Evaluation: the same positions, each record once in the order of the files, then NO_RECORD.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from densenet_keras.errors import UsageError

SEED_LIMIT = 1 << 31
_MASK = (1 << 64) - 1
NO_RECORD = -1  # in place of a record number where an evaluation batch is filled up


class Batch(NamedTuple):
    """One rank's share of one step."""

    records: np.ndarray  # [batch] int64, numbers in the split
    draws: np.ndarray  # [batch, 2] int64, seed pairs of the augmentation, no two alike in a run


@dataclass
class Stream:
    """Where the training stream of a run stands: step s begins at image s * global_batch + skipped_images.

    Attributes:
        first_step: the global step of the first batch, when the iterator is initialised.
        skipped_images: what going back has left out.
        rewinds: how often the run has gone back.
        skipped_at_start: of skipped_images, what had been left out when the iterator was initialised. A
            stream that cannot be begun anew goes on behind what is left out later, and skips nothing itself.
    """

    first_step: int
    skipped_images: int = 0
    rewinds: int = 0
    skipped_at_start: int = field(init=False)

    def __post_init__(self) -> None:
        self.begin_at(self.first_step)

    def begin_at(self, step: int) -> None:
        """To be called before the iterator is initialised: the batch of global step `step` comes first."""
        self.first_step, self.skipped_at_start = step, self.skipped_images


class TrainOrder:
    """The order of `records` records for one rank.

    Raises:
        UsageError: a seed that is negative or above 31 bits.
    """

    def __init__(self, seed: int, records: int, batch_size: int, rank: int, size: int) -> None:
        if not 0 <= seed < SEED_LIMIT:
            raise UsageError(f"--seed {seed} is outside 0 to {SEED_LIMIT - 1}; choose a number in that range")
        self._seed = seed
        self._records = records
        self._batch_size = batch_size
        self._first = rank * batch_size
        self._global_batch = size * batch_size
        # This pass and the next, and all that one batch spans if the split is smaller than it.
        self._kept = 2 + batch_size // records
        self._permutations: OrderedDict[int, np.ndarray] = OrderedDict()

    def batch(self, step: int, skipped_images: int = 0) -> Batch:
        """The batch of global step `step`, at the same cost for every step.

        Args:
            skipped_images: positions that the run has left out so far; see `Stream`.
        """
        begin = step * self._global_batch + skipped_images + self._first
        positions = begin + np.arange(self._batch_size, dtype=np.int64)
        passes, places = np.divmod(positions, self._records)
        records = np.empty(self._batch_size, np.int64)
        for number in np.unique(passes):
            chosen = passes == number
            records[chosen] = self._permutation(int(number))[places[chosen]]
        return Batch(records, np.stack([(self._seed << 32) + passes, places], axis=1))

    def _permutation(self, number: int) -> np.ndarray:
        if number not in self._permutations:
            random = np.random.RandomState([self._seed, number])
            self._permutations[number] = random.permutation(self._records)
            while len(self._permutations) > self._kept:
                self._permutations.popitem(last=False)
        return self._permutations[number]


def substitute(draw: np.ndarray, attempt: int, records: int) -> int:
    """The record that is tried, as number `attempt` from 1, where a bad one stands.

    A function of seed, pass and position alone: neither ranks nor what was found bad before decide.

    Args:
        draw: the seed pair of the place, see `Batch`; [2] int64.
        records: of the split.
    """
    state = 0
    for value in (*draw, attempt):
        state = _mixed((state + int(value)) & _MASK)
    return state % records


def _mixed(state: int) -> int:
    """One output of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), from its state."""
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def eval_batches_per_rank(records: int, batch_size: int, size: int) -> int:
    """Batches that each of `size` ranks evaluates, the same for all."""
    return -(-records // (batch_size * size))


def eval_records(step: int, records: int, batch_size: int, rank: int, size: int) -> np.ndarray:
    """Record numbers of one rank's evaluation batch `step`, NO_RECORD past the end; [batch] int64."""
    first = (step * size + rank) * batch_size
    numbers = first + np.arange(batch_size, dtype=np.int64)
    return np.where(numbers < records, numbers, NO_RECORD)
