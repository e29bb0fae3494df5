"""Image records of one split (train or validation): its shards, checked and indexed, with no TensorFlow.

Layout: the TFRecord shards that TF-Slim's ImageNet script writes, `train-00000-of-01024` and
`validation-00000-of-00128`, each record a tf.train.Example with image/encoded and image/class/label.
"""

from __future__ import annotations

import math
import os
import re
import struct
from dataclasses import dataclass, field
from typing import Dict, Mapping, Optional, Sequence, Tuple

import numpy as np

from densenet_keras.data import index_scan, record_index, tfrecord
from densenet_keras.data.index_scan import Bad
from densenet_keras.data.shards import find_shards
from densenet_keras.errors import UsageError
from densenet_keras.settings.config import Config

TRAIN = "train"
VALIDATION = "validation"

_MOST_SHARE_ADVISED = 0.05  # beyond it the data is to be mended


class BadRecord(Exception):
    """A record that cannot be used, or not be read.

    Attributes:
        reason: what is wrong, without the record's name.
        is_damage: whether its bytes are wrong; else the next attempt may find them right.
    """

    def __init__(self, place: str, reason: str, remedy: str = "", is_damage: bool = True) -> None:
        super().__init__(f"{place}: {reason}" + (f"; {remedy}" if remedy else ""))
        self.reason = reason
        self.is_damage = is_damage


@dataclass(frozen=True)
class Policy:
    """What a run does about bad records.

    Attributes:
        share: of a split may be bad; more end the run.
        folder: the run's, where they are listed; empty for no list.
    """

    share: float = 0.0
    folder: str = ""

    @classmethod
    def of(cls, config: Config) -> Policy:
        """That of a run."""
        return cls(0.0 if config.data.strict else config.data.bad_record_share, config.run.log_dir)

    def permitted(self, records: int) -> int:
        """How many of so many records may be bad."""
        return int(self.share * records + 1e-9)

    def remedy(self, bad: int, split: Split) -> str:
        """What is permitted, and what would permit so many bad ones; empty for a strict run."""
        if not self.share:
            return ""
        permitted = self.permitted(len(split))
        text = f"--bad_record_share {self.share:g} permits {permitted} of {len(split)} {split.name} records"
        needed = bad / len(split)
        if needed > _MOST_SHARE_ADVISED:
            return text
        digits = 1 - math.floor(math.log10(needed))
        share = math.ceil(needed * 10**digits) / 10**digits
        return f"{text}; {share:g} would pass over {'this one' if bad == 1 else f'these {bad}'}"


STRICT = Policy()


@dataclass(frozen=True, eq=False)
class Split:
    """One split: its shards, and one row for each record, in the order of the files.

    Attributes:
        offset: byte of the shard at which the payload (the Example) starts.
        length: bytes of the payload; its checksum follows it.
        label: as stored, before --label_offset is taken off.
        image_start, image_bytes: where the encoded image lies in the payload.
        checksum: of the payload, as stored.
        bad: records that were bad when the index was built; all but shard and offset is 0 there.
    """

    name: str
    paths: Tuple[str, ...]
    shard: np.ndarray  # [n] int32, index into paths
    offset: np.ndarray  # [n] uint64
    length: np.ndarray  # [n] uint32
    label: np.ndarray  # [n] int32
    image_start: np.ndarray  # [n] uint32
    image_bytes: np.ndarray  # [n] uint32
    checksum: np.ndarray  # [n] uint32
    bad: Dict[int, Bad] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.shard)

    @property
    def good(self) -> np.ndarray:
        """Numbers of the records that were not bad when the index was built."""
        return np.flatnonzero(self.image_bytes)

    def place(self, record: int) -> Tuple[str, int, int]:
        """Record number `record` of the split: its file, number in the file, byte."""
        shard = self.shard[record]
        first = int(np.searchsorted(self.shard, shard))
        return self.paths[shard], record - first, int(self.offset[record]) - tfrecord.HEADER_BYTES

    def describe(self, record: int) -> str:
        """Names record number `record` of the split for a message: file, number in the file, byte."""
        path, number, byte = self.place(record)
        return f"{path}: record {number} at byte {byte}"

    def verify(self, record: int, header: bytes, payload: Sequence[bytes], footer: bytes) -> None:
        """Raises BadRecord unless header, payload (in pieces) and checksum are those that were indexed."""
        remedy = "it was intact when the index was built: check the disk and copy the file again"
        if header != tfrecord.header(int(self.length[record])):
            raise BadRecord(self.describe(record), tfrecord.WRONG_LENGTH, remedy)
        try:
            tfrecord.check_payload(footer, *payload)
        except tfrecord.FormatError as error:
            raise BadRecord(self.describe(record), str(error), remedy) from error
        if footer != struct.pack("<I", self.checksum[record]):
            raise BadRecord(
                self.describe(record),
                "another record stands there than when the index was built, though the file has the same "
                "size and time",
                f"remove {record_index.FOLDER} in the folder of the data, then start again",
                is_damage=False,
            )


def named_in(text: str) -> str:
    """What a `BadRecord` said whose text TensorFlow has put into an error or a log; empty without one."""
    found = re.search(r"BadRecord: (.+)", text)
    return found.group(1) if found else ""


def open_split(
    data_dir: str,
    name: str,
    *,
    shards: str = "",
    progress: Optional[record_index.Progress] = None,
    environ: Optional[Mapping[str, str]] = None,
    policy: Policy = STRICT,
) -> Split:
    """The split `name` ("train" or "validation") in `data_dir`, checked from end to end.

    The first call reads every byte to build the index, later ones and other processes find it in a
    cache for as long as names, sizes and times of the shards stay the same.

    Args:
        shards: numbers of those to use, such as 0-99; they have an index of their own. Empty for all.
        progress: called with (bytes read, bytes in all) while an index is built.
        environ: looked up for XDG_CACHE_HOME, where the index goes if data_dir is read-only; the
            process's own by default.
        policy: how many records may be damaged, or without an image or label; none by default.

    Raises:
        UsageError: no such folder, no or missing shards, more bad records than permitted.
    """
    paths = find_shards(data_dir, name, shards)
    environ = os.environ if environ is None else environ
    part = f"{name}-part" if shards else name  # the index of the whole split stays
    kept = record_index.places(data_dir, part, environ, policy.folder)
    columns, bad = record_index.load_or_build(kept, paths, progress, policy.share)
    split = Split(name=name, paths=tuple(paths), bad=bad, **columns)
    _check_bad(split, policy)
    return split


def _check_bad(split: Split, policy: Policy) -> None:
    """Raises UsageError if more records are bad than `policy` permits, naming up to twenty."""
    count = sum(what.records for what in split.bad.values())
    if count <= policy.permitted(len(split)) and len(split.bad) < len(split):
        return
    named = [
        (f"{split.describe(row)}: {split.bad[row].reason}", split.bad[row].remedy)
        for row in sorted(split.bad)[: index_scan.BAD_NAMED]
    ]
    text = index_scan.listing(named)
    raise UsageError("\n".join(filter(None, [text, policy.remedy(count, split)])))


def check_labels(split: Split, label_offset: int, num_classes: int) -> None:
    """Makes sure that every label, less `label_offset`, is one of `num_classes` classes.

    Raises:
        UsageError: naming the first record that is not.
    """
    lowest, highest = label_offset, label_offset + num_classes - 1
    good = split.good
    labels = split.label[good]
    outside = good[(labels < lowest) | (labels > highest)]
    if not len(outside):
        return
    record = int(outside[0])
    found_low, found_high = int(labels.min()), int(labels.max())
    raise UsageError(
        f"{split.describe(record)}: label {split.label[record]} is outside {lowest} to {highest}, the range "
        f"of --num_classes {num_classes} with --label_offset {label_offset} ({len(outside)} of {len(split)} "
        f"{split.name} records are); the labels found run from {found_low} to {found_high}: give "
        f"{_remedy(found_low, found_high, label_offset, num_classes)}"
    )


def _remedy(found_low: int, found_high: int, label_offset: int, num_classes: int) -> str:
    if found_low < 0:  # no --label_offset makes a class of it
        return (
            "the shards only records that have a label from 0 on: a negative one says that there is none, so "
            "write them anew without those"
        )
    span = found_high - found_low + 1
    remedies = []
    if span <= num_classes:
        remedies.append(f"--label_offset {found_low}")
    if found_low >= label_offset:
        remedies.append(f"--num_classes {found_high - label_offset + 1}")
    return " or ".join(remedies) or f"--label_offset {found_low} --num_classes {span}"
