"""Which picture goes into which shard: decided before any is read, so that work can be taken up again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import List, NamedTuple, Tuple

import numpy as np

from densenet_keras.data.prepare import split as splitting
from densenet_keras.data.prepare.listing import SPLITS, Listing
from densenet_keras.data.prepare.options import PrepareOptions
from densenet_keras.data.prepare.pictures import Judge, Picture
from densenet_keras.errors import UsageError

FORMAT_VERSION = 1  # of what is written; unfinished work of another version is not gone on with
SHARD_BYTES = 128_000_000
_RECORD_OVERHEAD_BYTES = 300  # keys, names and checksums beside the picture
_SAMPLE = 32  # pictures of each split that are shrunk to learn how large they will be


class Shard(NamedTuple):
    """One file of the data set to be."""

    name: str
    split: int  # index into SPLITS
    rows: np.ndarray  # [n] int64, of the listing, in the order in which they are written


@dataclass(frozen=True)
class Plan:
    """All shards, and what tells this work from any other.

    Attributes:
        texts: what each class is called.
        estimated_bytes: of all shards together.
        fingerprint: of everything that decides the bytes written.
    """

    shards: Tuple[Shard, ...]
    texts: Tuple[str, ...]
    estimated_bytes: int
    fingerprint: str

    @property
    def pictures(self) -> int:
        """All pictures of both splits."""
        return sum(len(shard.rows) for shard in self.shards)

    def shards_of(self, split: int) -> List[Shard]:
        """The shards of a split, in order."""
        return [shard for shard in self.shards if shard.split == split]


def make(listing: Listing, options: PrepareOptions, texts: List[str], judge: Judge) -> Plan:
    """The plan for a listing; decides its undecided splits.

    Raises:
        UsageError: a split without pictures, or fewer pictures than files.
    """
    listing.split = splitting.decide(listing, options.validation_share, options.seed)
    shards: List[Shard] = []
    estimated = 0
    for number, name in enumerate(SPLITS):
        rows = listing.rows_of(number)
        if not len(rows):
            raise UsageError(
                f"{options.pictures} has no picture for {name}: every class that is split has one picture; "
                "add pictures"
            )
        source_bytes = int(listing.size[rows].sum())
        written = int(source_bytes * _shrinkage(listing, rows, options, judge))
        written += _RECORD_OVERHEAD_BYTES * len(rows)
        estimated += written
        shards += _shards(number, rows, written, options)
    return Plan(tuple(shards), tuple(texts), estimated, _fingerprint(listing, options, texts, shards))


def _shards(number: int, rows: np.ndarray, written: int, options: PrepareOptions) -> List[Shard]:
    """The shards of split `number`: its rows shuffled by the seed and cut into equal parts."""
    name = SPLITS[number]
    wanted = getattr(options, f"{name}_shards")
    if wanted is not None and wanted > len(rows):
        raise UsageError(f"--{name}_shards {wanted}: there are only {len(rows)} {name} pictures; give fewer")
    count = wanted or min(len(rows), max(1, round(written / SHARD_BYTES)))
    shuffled = rows[np.random.RandomState([options.seed, number]).permutation(len(rows))]
    return [
        Shard(f"{name}-{place:05d}-of-{count:05d}", number, part)
        for place, part in enumerate(np.array_split(shuffled, count))
    ]


def _shrinkage(listing: Listing, rows: np.ndarray, options: PrepareOptions, judge: Judge) -> float:
    """Bytes written for each byte read, from a sample where pictures are shrunk."""
    if options.short_side is None:
        return 1.0
    before = after = 1
    for row in rows[np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).astype(np.int64)]:
        try:
            encoded = listing.read(int(row))
        except OSError:
            continue
        (picture,) = judge.pictures([encoded])
        if isinstance(picture, Picture):
            after += len(picture.encoded)
            before += len(encoded)
    return after / before


def _fingerprint(listing: Listing, options: PrepareOptions, texts: List[str], shards: List[Shard]) -> str:
    import tensorflow as tf

    deciding = {
        "format": FORMAT_VERSION,
        "tensorflow": tf.__version__,
        "pictures": listing.digest,
        "texts": texts,
        "seed": options.seed,
        "validation_share": options.validation_share,
        "short_side": options.short_side,
        "quality": options.quality,
        "shards": [shard.name for shard in shards],
    }
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:32]
