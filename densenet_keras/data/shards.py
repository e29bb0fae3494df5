"""Which files of a folder are the shards of a split, by their names alone."""

from __future__ import annotations

import os
import re
from typing import List, Set, Tuple

from densenet_keras.errors import UsageError

_NUMBERED = re.compile(r"-(\d+)-of-(\d+)$")
# As other converters call the shards of a split: flowers_train_00000-of-00005.tfrecord (TF-Slim), val-*.
_OTHER_NAME = re.compile(r"(?:.*[_-])?(train|validation|val)[_-](\d+)-of-(\d+)(\.[a-z]+?)??(\.gz)?$")
_MOST_SHARDS = 1_000_000
_EXTENSIONS = ("", ".tfrecord", ".tfrecords", ".tfrec")


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
    remedy = f"give the folder that holds files such as {name}-00000-of-00008"
    if name == "validation" and any(file.startswith("train-") for file in present):
        remedy += "; training without evaluations, --mode train, needs none"
    return remedy


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
