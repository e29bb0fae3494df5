"""Image records of one split (train or validation): its shards, checked and indexed, with no TensorFlow.

Layout: the TFRecord shards that TF-Slim's ImageNet script writes, `train-00000-of-01024` and
`validation-00000-of-00128`, each record a tf.train.Example with image/encoded and image/class/label.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import List, Mapping, Optional, Set, Tuple

import numpy as np

from densenet_keras.data import record_index, tfrecord
from densenet_keras.errors import UsageError

TRAIN = "train"
VALIDATION = "validation"

_NUMBERED = re.compile(r"-(\d+)-of-(\d+)$")
# As other converters call the shards of a split: flowers_train_00000-of-00005.tfrecord (TF-Slim), val-*.
_OTHER_NAME = re.compile(r"(?:.*[_-])?(train|validation|val)[_-](\d+)-of-(\d+)(\.[a-z]+?)??(\.gz)?$")
_MOST_SHARDS = 1_000_000
_EXTENSIONS = ("", ".tfrecord", ".tfrecords", ".tfrec")


@dataclass(frozen=True, eq=False)
class Split:
    """One split: its shards, and one row for each record, in the order of the files.

    Attributes:
        offset: byte of the shard at which the payload (the Example) starts.
        length: bytes of the payload; its checksum follows it.
        label: as stored, before --label_offset is taken off.
        image_start, image_bytes: where the encoded image lies in the payload.
    """

    name: str
    paths: Tuple[str, ...]
    shard: np.ndarray  # [n] int32, index into paths
    offset: np.ndarray  # [n] uint64
    length: np.ndarray  # [n] uint32
    label: np.ndarray  # [n] int32
    image_start: np.ndarray  # [n] uint32
    image_bytes: np.ndarray  # [n] uint32

    def __len__(self) -> int:
        return len(self.shard)

    def describe(self, record: int) -> str:
        """Names record number `record` of the split for a message: file, number in the file, byte."""
        shard = self.shard[record]
        first = int(np.searchsorted(self.shard, shard))
        byte = int(self.offset[record]) - tfrecord.HEADER_BYTES
        return f"{self.paths[shard]}: record {record - first} at byte {byte}"

    def verify(self, record: int, data: bytes) -> bytes:
        """The payload in `data`, which holds the payload and its checksum as read from the shard.

        Raises:
            BadRecord: they do not belong together.
        """
        length = int(self.length[record])
        try:
            tfrecord.check_payload(data[:length], data[length:])
        except tfrecord.FormatError as error:
            raise BadRecord(
                f"{self.describe(record)}: {error}, though it was intact when the index was built; "
                "check the disk and copy the file again"
            ) from error
        return data[:length]


class BadRecord(Exception):
    """A record that was intact when the index was built and is not any more."""


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
) -> Split:
    """The split `name` ("train" or "validation") in `data_dir`, checked from end to end.

    The first call reads every byte to build the index, later ones and other processes find it in a
    cache for as long as names, sizes and times of the shards stay the same.

    Args:
        shards: numbers of those to use, such as 0-99; they have an index of their own. Empty for all.
        progress: called with (bytes read, bytes in all) while an index is built.
        environ: looked up for XDG_CACHE_HOME, where the index goes if data_dir is read-only; the
            process's own by default.

    Raises:
        UsageError: no such folder, no or missing shards, a damaged record, no image or label in one.
    """
    paths = find_shards(data_dir, name, shards)
    environ = os.environ if environ is None else environ
    part = f"{name}-part" if shards else name  # the index of the whole split stays
    columns = record_index.load_or_build(data_dir, part, paths, progress, environ)
    return Split(name=name, paths=tuple(paths), **columns)


def find_shards(data_dir: str, name: str, wanted: str = "") -> List[str]:
    """Paths of the shards of a split, sorted.

    Args:
        wanted: numbers of those to give, such as 0-99 or 0-9,20; the others need not be there.

    Raises:
        UsageError: the folder is missing, holds no shard, or not all that are wanted of a numbered set.
    """
    try:
        present = sorted(os.listdir(data_dir))
    except OSError as error:
        raise UsageError(
            f"--data_dir {data_dir} cannot be read: {error.strerror}; give the folder that holds the "
            f"TFRecord shards train-* and validation-*"
        ) from error
    shards = [
        file
        for file in present
        if file.startswith(name + "-")
        and _stem_and_extension(file)[1] in _EXTENSIONS
        and os.path.isfile(os.path.join(data_dir, file))
    ]
    if not shards:
        raise UsageError(
            f"--data_dir {data_dir} holds no shard {name}-* (it holds {_listing(present)}); "
            + _naming_remedy(data_dir, name, present)
        )
    numbered = [file for file in shards if _NUMBERED.search(_stem_and_extension(file)[0])]
    total = len(shards)
    if numbered:
        shards = numbered
        total = _total(data_dir, name, shards)
    numbers = _numbers(wanted, total, f"--data_dir {data_dir}: {name}")
    if numbered:
        _check_complete(data_dir, name, shards, numbers)
        shards = [file for file in shards if _number(file) in numbers]
    else:
        shards = [shards[number] for number in sorted(numbers)]
    return [os.path.join(data_dir, file) for file in shards]


def _naming_remedy(data_dir: str, name: str, present: List[str]) -> str:
    """What to do about shards that are there under other names, if any seem to be."""
    for file in present:
        found = _OTHER_NAME.match(file)
        if not found or found.group(1) not in (name, name[:3]):
            continue
        if found.group(5):
            return f"{file} is compressed, and records are read by their place: unpack with gunzip first"
        numbers = f"{found.group(2)}-of-{found.group(3)}"
        return f"rename such files, {file} to {name}-{numbers}, or link to them under such names"
    folders = [file for file in present if os.path.isdir(os.path.join(data_dir, file))]
    for folder in (name, name[:3]):
        if folder in folders:
            return (
                f"train and validation must lie in one folder: put links to the files of {folder}/ there, "
                f"under names such as {name}-00000-of-00008"
            )
    return f"give the folder that holds files such as {name}-00000-of-00008"


def _stem_and_extension(file: str) -> Tuple[str, str]:
    stem, extension = os.path.splitext(file)
    return stem, extension.lower()


def _listing(files: List[str]) -> str:
    if not files:
        return "nothing"
    return ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")


def _numbers(wanted: str, total: int, what: str) -> Set[int]:
    """The numbers in text such as 0-9,20; all of `total` if it is empty."""
    numbers: Set[int] = set()
    for part in wanted.split(",") if wanted else [f"0-{total - 1}"]:
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not low <= high < total:
            raise UsageError(
                f"--shards {wanted}: {part} is not a part of 0-{total - 1}, the shards that {what} counts; "
                "give numbers among these, the smaller first"
            )
        numbers.update(range(low, high + 1))
    return numbers


def _number(file: str) -> int:
    found = _NUMBERED.search(_stem_and_extension(file)[0])
    return int(found.group(1)) if found else -1


def _total(data_dir: str, name: str, shards: List[str]) -> int:
    """How many shards the set has, as their names say."""
    numbers = [_NUMBERED.search(_stem_and_extension(file)[0]) for file in shards]
    totals = sorted({int(match.group(2)) for match in numbers if match})
    if len(totals) > 1:
        raise UsageError(
            f"--data_dir {data_dir} mixes {name} shards of sets of {' and '.join(map(str, totals))} files; "
            "keep one set"
        )
    if totals[0] > _MOST_SHARDS:
        raise UsageError(
            f"--data_dir {data_dir}: {shards[0]} is one of {totals[0]} {name} shards by its name, and no set "
            f"has more than {_MOST_SHARDS}; rename the set"
        )
    return totals[0]


def _check_complete(data_dir: str, name: str, shards: List[str], wanted: Set[int]) -> None:
    total = _total(data_dir, name, shards)
    present = [_number(file) for file in shards]
    missing = sorted(wanted - set(present))
    if missing:
        raise UsageError(
            f"--data_dir {data_dir}: {len(missing)} of {len(wanted)} {name} shards missing, the first is "
            f"{name}-{missing[0]:05d}-of-{total:05d}; copy the whole set"
        )
    if len(present) != len(set(present)) or max(present) >= total:
        raise UsageError(
            f"--data_dir {data_dir} holds {len(present)} {name} shards that are numbered 0 to "
            f"{total - 1}; remove the ones that do not belong to the set"
        )


def check_labels(split: Split, label_offset: int, num_classes: int) -> None:
    """Makes sure that every label, less `label_offset`, is one of `num_classes` classes.

    Raises:
        UsageError: naming the first record that is not.
    """
    lowest, highest = label_offset, label_offset + num_classes - 1
    outside = np.flatnonzero((split.label < lowest) | (split.label > highest))
    if not len(outside):
        return
    record = int(outside[0])
    found_low, found_high = int(split.label.min()), int(split.label.max())
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
