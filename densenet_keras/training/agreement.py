"""What ranks tell each other outside the training step."""

from __future__ import annotations

from typing import Callable, Dict, Mapping, Sequence

import numpy as np
import tensorflow as tf

from densenet_keras.backends.base import Backend
from densenet_keras.errors import RunError
from densenet_keras.rank import Rank

_EXACT = (np.int64, np.float64)  # of the sums of integers and of floats


class HostSum:
    """Sums vectors of the host over ranks, by name.

    All vectors travel in one pair of collectives whose nodes are built once: on a device every other set
    of fetches would be another graph to compile. All ranks must call it at the same points.
    """

    def __init__(self, backend: Backend, integers: Mapping[str, int], floats: Mapping[str, int]) -> None:
        """
        Args:
            integers: length of each int32 vector; sums must fit int32.
            floats: length of each float32 vector.
        """
        self._lengths = (integers, floats)
        self.single = backend.topology.size == 1
        self._kinds = {name: kind for kind, lengths in zip(_EXACT, self._lengths) for name in lengths}
        if self.single:
            return
        self._fed = [
            tf.compat.v1.placeholder(dtype, [sum(lengths.values())])
            for dtype, lengths in zip((tf.int32, tf.float32), self._lengths)
        ]
        self._sums = backend.all_reduce_sum(self._fed)

    def __call__(
        self, session: tf.compat.v1.Session, vectors: Mapping[str, Sequence[float]]
    ) -> Dict[str, np.ndarray]:
        """Sums over ranks of the vectors given, int64 and float64; the others count as zeros."""
        if self.single:
            return {name: np.asarray(vector, self._kinds[name]) for name, vector in vectors.items()}
        packed = [
            np.concatenate([vectors.get(name, [0] * length) for name, length in lengths.items()])
            for lengths in self._lengths
        ]
        sums = session.run(self._sums, feed_dict=dict(zip(self._fed, packed)))
        found: Dict[str, np.ndarray] = {}
        for kind, lengths, together in zip(_EXACT, self._lengths, sums):
            ends = np.cumsum(list(lengths.values()))
            found.update(zip(lengths, np.split(together.astype(kind), ends[:-1])))
        return {name: found[name] for name in vectors}


def summing(sums: HostSum, session: tf.compat.v1.Session, name: str) -> Callable[[int], int]:
    """A function that sums an integer over all ranks, as the vector `name` of length 1."""
    if sums.single:
        return lambda value: value  # at every chunk
    return lambda value: int(sums(session, {name: [value]})[name][0])


# What a session of training or evaluation sums: what each rank asks for after a chunk, what it found in
# a folder, and the sums of an evaluation.
VECTORS = ({"requests": 1, "found": 2, "counts": 4}, {"loss": 1})


def host_sum(backend: Backend) -> HostSum:
    """The sums that a session of training or evaluation needs.

    `layers` and `rows` are for what `origin` finds: a number of each rank, one of each picture of a rank.
    """
    integers, floats = VECTORS
    sizes = {"layers": backend.topology.size, "rows": backend.config.data.batch_size}
    return HostSum(backend, {**integers, **sizes}, floats)


def check_same_on_all_ranks(
    session: tf.compat.v1.Session, sums: HostSum, rank: Rank, found: Sequence[int], folder: str
) -> None:
    """Refuses to go on if ranks found different checkpoints, before they wait for each other for good.

    Args:
        found: two integers that tell what this rank found in `folder`; their sums must fit int32.

    Raises:
        RunError: naming this rank.
    """
    size = rank.topology.size
    if sums(session, {"found": found})["found"].tolist() != [size * value for value in found]:
        raise RunError(
            f"rank {rank.topology.rank} found other checkpoints in {folder} than other ranks; all ranks must "
            "see the same: put the folder on a file system that all share, and let nothing write to it "
            "meanwhile"
        )
