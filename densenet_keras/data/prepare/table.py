"""A CSV file that names pictures: the columns path, label and, if wanted, split."""

from __future__ import annotations

import csv
import os
import stat
from typing import Dict, Iterator, List, NamedTuple, Set, Tuple

from densenet_keras.data.prepare.folders import VALIDATION_NAMES, check_class_names, in_order
from densenet_keras.data.prepare.listing import SPLITS, UNDECIDED, Listing, ListingBuilder
from densenet_keras.data.records import TRAIN, VALIDATION
from densenet_keras.errors import UsageError


class _Row(NamedTuple):
    line: int  # in the file, from 1
    path: str
    label: str
    split: str


def list_table(path: str) -> Listing:
    """The pictures that the CSV file names; paths are relative to its folder.

    Raises:
        UsageError: naming the line that cannot be used, or that there are fewer than two classes.
    """
    names: Set[str] = set()
    splits: Set[str] = set()
    for row in _rows(path):
        names.add(row.label)
        splits.add(row.split)
    classes = in_order(names)
    if len(classes) < 2:
        raise UsageError(f"{path} names {len(classes)} class, but at least two are needed")
    check_class_names(classes)
    taken, notes = _taken_splits(splits)
    numbers = {name: number for number, name in enumerate(classes)}
    rows = ListingBuilder(os.path.dirname(path) or ".")
    for row in _rows(path):
        if row.split in taken:
            status = _status(os.path.join(os.fsdecode(rows.root), row.path))
            rows.add(os.fsencode(row.path), numbers[row.label], taken[row.split], status)
    return Listing(rows, classes, notes)


def _rows(path: str) -> Iterator[_Row]:
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            columns = [column.strip().lower() for column in next(reader, [])]
            places = _places(path, columns)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield _row(path, reader.line_num, cells, places)
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{path} cannot be read: {reason}") from error


def _places(path: str, columns: List[str]) -> Dict[str, int]:
    for column in ("path", "label"):
        if column not in columns:
            raise UsageError(
                f"{path} has no column {column}: its first line must name the columns path, label and, if "
                f"wanted, split, separated by commas; it is {','.join(columns)!r}"
            )
    return {column: columns.index(column) for column in ("path", "label", "split") if column in columns}


def _row(path: str, line: int, cells: List[str], places: Dict[str, int]) -> _Row:
    if len(cells) <= max(places.values()):
        raise UsageError(f"{path}, line {line}: {len(cells)} cells, fewer than there are columns")
    row = _Row(
        line, cells[places["path"]], cells[places["label"]].strip(),
        cells[places["split"]].strip().lower() if "split" in places else "",
    )  # fmt: skip
    if not row.path.strip() or not row.label or "\0" in row.path:
        raise UsageError(f"{path}, line {line}: a path and a label must stand there")
    if row.split not in ("", TRAIN, *VALIDATION_NAMES):
        raise UsageError(
            f"{path}, line {line}: the split {row.split!r} must be {TRAIN} or one of "
            f"{', '.join(VALIDATION_NAMES)}, or be left empty"
        )
    return row


def _taken_splits(found: Set[str]) -> Tuple[Dict[str, int], List[str]]:
    """What each name of a split stands for, and which of them are not taken."""
    validation = [name for name in VALIDATION_NAMES if name in found]
    taken = {"": UNDECIDED, TRAIN: SPLITS.index(TRAIN)}
    if validation:
        taken[validation[0]] = SPLITS.index(VALIDATION)
    notes = [f"rows of the split {name} are passed over, {validation[0]} is taken" for name in validation[1:]]
    return taken, notes


def _status(path: str) -> Tuple[int, int]:
    """Bytes and time of change; zeros for what is not a file, which will be left out."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return 0, 0
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else (0, 0)
