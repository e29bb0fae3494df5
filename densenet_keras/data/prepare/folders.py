"""Folders of pictures: one folder for each class, with or without train and val above them."""

from __future__ import annotations

import os
import re
import stat
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from densenet_keras.data.prepare.listing import SPLITS, UNDECIDED, Listing, ListingBuilder
from densenet_keras.data.records import TRAIN, VALIDATION
from densenet_keras.errors import UsageError

# What others call the validation part, in the order in which it is looked for.
VALIDATION_NAMES = ("val", "validation", "valid", "test")
_NOT_CLASSES_EITHER = ("training", "testing", "dev", "eval")
_LEFT_BY_FILE_MANAGERS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "icon\r"}


class Part(NamedTuple):
    """A folder of class folders.

    Attributes:
        folder: path below the source's folder; "" for itself.
        split: number of the split its pictures belong to, or UNDECIDED.
    """

    folder: str
    split: int


def parts_of(root: str) -> Tuple[List[Part], List[str]]:
    """The parts of a source folder, and what a person should know of the choice.

    Raises:
        UsageError: folders that are named as parts are not classes.
    """
    folders = subfolders(root)
    named = {name.lower(): name for name in reversed(folders)}  # of Train and train the one before
    train, found = named.get(TRAIN), [named[name] for name in VALIDATION_NAMES if name in named]
    if train and found and subfolders(os.path.join(root, train)):
        notes = [f"{train} and {found[0]} are taken, {' and '.join(found[1:])} is not"] if found[1:] else []
        return [Part(train, SPLITS.index(TRAIN)), Part(found[0], SPLITS.index(VALIDATION))], notes
    if train and folders == [train] and subfolders(os.path.join(root, train)):
        note = f"there is no {', '.join(VALIDATION_NAMES[:-1])} or test beside train: a share is held out"
        return [Part(train, UNDECIDED)], [note]
    if len(folders) > 1 and set(named) <= {TRAIN, *VALIDATION_NAMES, *_NOT_CLASSES_EITHER}:
        raise UsageError(
            f"{root} holds the folders {' and '.join(folders)}, which name parts of a data set, not classes; "
            f"call the parts {TRAIN} and {VALIDATION_NAMES[0]}, with a folder of pictures for each class in "
            "them"
        )
    return [Part("", UNDECIDED)], []


def list_parts(root: str, parts: List[Part], notes: List[str], flat_labels: Dict[str, str]) -> Listing:
    """The pictures of class folders.

    Args:
        flat_labels: class by stem of the file name, of validation pictures that lie in no class folder.

    Raises:
        UsageError: fewer than two classes, a class for validation alone, a folder that cannot be read.
    """
    found = {part: subfolders(os.path.join(root, part.folder)) for part in parts}
    classes = in_order(found[parts[0]])
    if len(classes) < 2:
        raise UsageError(_too_few(os.path.join(root, parts[0].folder), classes))
    check_class_names(classes)
    rows, numbers = ListingBuilder(root), {name: number for number, name in enumerate(classes)}
    used = set()
    for part in parts:
        folder = os.path.join(root, part.folder)
        unknown = [name for name in found[part] if name not in numbers]
        if unknown:
            raise UsageError(
                f"{os.path.join(folder, unknown[0])} is a class that {os.path.join(root, parts[0].folder)} "
                "does not have; give both the same class folders"
            )
        if not found[part] and flat_labels:
            _add_flat(rows, part, folder, numbers, flat_labels)
            continue
        for name in in_order(found[part]):
            below = os.path.join(part.folder, name)
            for path, status in files_below(root, below):
                rows.add(path, numbers[name], part.split, status)
                used.add(name)
        notes = notes + _loose_files(folder)
    empty = [name for name in classes if name not in used]
    if empty:
        raise UsageError(
            f"{os.path.join(root, parts[0].folder, empty[0])} holds no file, so that {len(empty)} of "
            f"{len(classes)} class folders are empty; remove them, or put pictures in"
        )
    return Listing(rows, classes, notes)


def _add_flat(
    rows: ListingBuilder, part: Part, folder: str, numbers: Dict[str, int], labels: Dict[str, str]
) -> None:
    """Adds validation pictures whose classes stand in a file, not in folders."""
    for path, status in files_below(os.fsdecode(rows.root), part.folder):
        stem = os.path.splitext(os.path.basename(os.fsdecode(path)))[0]
        if stem not in labels:
            raise UsageError(f"--validation_labels has no line for {os.path.join(folder, stem)}")
        rows.add(path, class_number(labels[stem], numbers), part.split, status)


def class_number(name: str, numbers: Dict[str, int]) -> int:
    """The number of a class that --validation_labels names.

    Raises:
        UsageError: there is no such class.
    """
    if name not in numbers:
        raise UsageError(f"--validation_labels names the class {name}, which the training part does not have")
    return numbers[name]


def _too_few(folder: str, classes: List[str]) -> str:
    what = f"one class folder, {classes[0]}" if classes else "no folder"
    return (
        f"{folder} holds {what}; give a folder with a folder of pictures for each of at least two classes "
        "(or with train and val above them, or ImageNet's tar files, or a CSV file)"
    )


def in_order(names: Iterable[str]) -> List[str]:
    """Class names as they are numbered: by their bytes; by value where all are whole numbers."""
    names = sorted(names, key=os.fsencode)
    if all(re.fullmatch(r"[0-9]{1,18}", name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return names


def check_class_names(names: Iterable[str]) -> None:
    """Refuses names that cannot be a line of a text file.

    Raises:
        UsageError: naming the first.
    """
    for name in names:
        if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name) or not name.strip():
            shown = os.fsencode(name)
            raise UsageError(f"the class name {shown!r} is not a line of UTF-8 text; rename it")


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden, or what file managers leave."""
    return name.startswith(".") or name.lower() in _LEFT_BY_FILE_MANAGERS


def subfolders(folder: str) -> List[str]:
    """Names of the folders in `folder`, sorted."""
    return [entry.name for entry in _entries(folder) if entry.is_dir()]


def _loose_files(folder: str) -> List[str]:
    loose = [entry.name for entry in _entries(folder) if entry.is_file()]
    if not loose:
        return []
    folder = folder.rstrip("/")
    return [f"{folder}: what lies outside the class folders is passed over ({len(loose)}: {loose[0]} ...)"]


def _entries(folder: str) -> List[os.DirEntry]:
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not is_clutter(entry.name)]
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror}") from error
    return sorted(entries, key=lambda entry: os.fsencode(entry.name))


def files_below(root: str, folder: str, above: Tuple = ()) -> Iterator[Tuple[bytes, Tuple[int, int]]]:
    """(path below root, (bytes, time of change in ns)) of each file in `folder` and the folders in it.

    Links are followed, but not in a circle. What is neither file nor folder is passed over; a link that
    leads nowhere counts as a file, so that somebody is told.
    """
    entries = _entries(os.path.join(root, folder))
    here = os.stat(os.path.join(root, folder))
    if (here.st_dev, here.st_ino) in above:
        return
    for entry in entries:
        path = os.path.join(folder, entry.name)
        status = _status(entry)
        if status is None:
            yield os.fsencode(path), (0, 0)
        elif stat.S_ISDIR(status.st_mode):
            yield from files_below(root, path, (*above, (here.st_dev, here.st_ino)))
        elif stat.S_ISREG(status.st_mode):
            yield os.fsencode(path), (status.st_size, status.st_mtime_ns)


def _status(entry: os.DirEntry) -> Optional[os.stat_result]:
    try:
        return entry.stat()
    except OSError:
        return None
