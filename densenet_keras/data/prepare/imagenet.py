"""ImageNet as it is downloaded: read where it lies in its tar files, nothing unpacked."""

from __future__ import annotations

import csv
import os
import re
import tarfile
from typing import Dict, Iterator, NamedTuple, Optional, Sequence

from densenet_keras.data.prepare.folders import check_class_names, class_number
from densenet_keras.data.prepare.listing import SPLITS, UNDECIDED, Listing, ListingBuilder
from densenet_keras.data.records import TRAIN, VALIDATION
from densenet_keras.errors import UsageError

TRAIN_TAR, VALIDATION_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
# The files of validation labels that come with TF-Slim and with Kaggle's copy.
LABEL_FILES = ("imagenet_2012_validation_synset_labels.txt", "LOC_val_solution.csv")
LABELS_MISSING = (
    "--validation_labels is missing: {tar} holds pictures without their classes; give TF-Slim's "
    "imagenet_2012_validation_synset_labels.txt or Kaggle's LOC_val_solution.csv"
)


class _Member(NamedTuple):
    """A file in an archive."""

    name: str
    start: int  # byte of the archive
    size: int  # bytes


def list_tars(folder: str, validation_labels: str) -> Listing:
    """The pictures in ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar in `folder`.

    Classes are the names of the inner archives, sorted.

    Args:
        validation_labels: file of the classes of the second; "" looks for one in `folder`.

    Raises:
        UsageError: a damaged or compressed archive, or labels that do not fit it.
    """
    train, validation = os.path.join(folder, TRAIN_TAR), os.path.join(folder, VALIDATION_TAR)
    has_validation = os.path.exists(validation)
    inner = {os.path.basename(member.name)[: -len(".tar")]: member for member in _members(train)
             if member.name.endswith(".tar")}  # fmt: skip
    classes = sorted(inner)
    if len(classes) < 2:
        raise UsageError(f"{train} holds {len(classes)} archives, but must hold one for each class")
    check_class_names(classes)
    rows = ListingBuilder(folder, [train, validation] if has_validation else [train])
    times = [os.stat(tar).st_mtime_ns for tar in rows.tars]
    split = SPLITS.index(TRAIN) if has_validation else UNDECIDED
    for number, name in enumerate(classes):
        for member in _members(train, inner[name]):
            path = os.fsencode(os.path.basename(member.name))  # the synset is part of it
            rows.add(path, number, split, (member.size, times[0]), (0, member.start))
    if has_validation:
        numbers = {name: number for number, name in enumerate(classes)}
        members = sorted(_members(validation), key=lambda member: os.path.basename(member.name))
        labels = _labels_for(members, folder, validation_labels, validation)
        for member in members:
            name = os.path.basename(member.name)
            number = class_number(labels[_stem(name)], numbers)
            status = (member.size, times[1])
            rows.add(os.fsencode(name), number, SPLITS.index(VALIDATION), status, (1, member.start))
    notes = [] if has_validation else [f"{VALIDATION_TAR} is not there: a share is held out"]
    return Listing(rows, classes, notes)


def _labels_for(members: Sequence[_Member], folder: str, validation_labels: str, tar: str) -> Dict[str, str]:
    path = validation_labels or label_file_in(folder)
    if path is None:
        raise UsageError(LABELS_MISSING.format(tar=tar))
    labels = read_validation_labels(path, [_stem(os.path.basename(member.name)) for member in members])
    missing = [member.name for member in members if _stem(os.path.basename(member.name)) not in labels]
    if missing:
        raise UsageError(f"--validation_labels {path} has no line for {missing[0]} of {tar}")
    return labels


def label_file_in(folder: str) -> Optional[str]:
    """A file of validation labels in `folder`, under a name that is known; None if there is none."""
    found = [os.path.join(folder, name) for name in LABEL_FILES]
    return next((path for path in found if os.path.exists(path)), None)


def read_validation_labels(path: str, stems: Sequence[str]) -> Dict[str, str]:
    """Class by stem of the picture's name.

    Args:
        stems: names of the pictures without ending, sorted; the lines of a list without names follow
            their order.

    Raises:
        UsageError: the file cannot be read, or has another number of lines.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UsageError(f"--validation_labels {path} cannot be read: {reason}") from error
    if lines and lines[0].lower().startswith("imageid"):
        cells = list(csv.reader(lines[1:]))
        for number, row in enumerate(cells, 2):
            if len(row) < 2 or not row[1].split():
                raise UsageError(f"--validation_labels {path}, line {number}: must be ImageId,Prediction")
        return {row[0]: row[1].split()[0] for row in cells}
    if lines and all(re.fullmatch(r"\d+", line) for line in lines):
        raise UsageError(
            f"--validation_labels {path} holds numbers, whose meaning depends on the development kit; give a "
            f"file with a synset on each line, such as {LABEL_FILES[0]}"
        )
    if len(lines) != len(stems):
        raise UsageError(
            f"--validation_labels {path} has {len(lines)} lines for {len(stems)} validation pictures; it "
            "must name the class of each, a line each, in the order of their names"
        )
    return dict(zip(stems, lines))


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _members(path: str, inside: Optional[_Member] = None) -> Iterator[_Member]:
    """The files in an archive, or in the archive that is its member `inside`."""
    what = path if inside is None else f"{path}: {inside.name}"
    try:
        with open(path, "rb") as file:
            if inside is not None:
                file.seek(inside.start)
            first = 0 if inside is None else inside.start
            end = os.path.getsize(path) if inside is None else inside.start + inside.size
            with tarfile.open(fileobj=file, mode="r:") as archive:
                # tarfile counts from where the file stood; an archive ends at its end mark.
                for found in _tar_infos(archive):
                    start = found.offset_data
                    if start + found.size > end or start < first:
                        raise tarfile.ReadError(f"{found.name} runs past the end")
                    if found.isfile() and not os.path.basename(found.name).startswith("."):
                        yield _Member(found.name, start, found.size)
                # tarfile takes a damaged header for the end, which is 512 zeros.
                file.seek(archive.offset)
                if file.read(512) != bytes(512):
                    raise tarfile.ReadError("a header is damaged, or the end mark missing")
    except tarfile.TarError as error:
        raise UsageError(
            f"{what} is damaged, cut off or compressed ({error}); compare its size with the original's and "
            "download it again"
        ) from error
    except OSError as error:
        raise UsageError(f"{what} cannot be read: {error.strerror}") from error


def _tar_infos(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while True:
        found = archive.next()
        if found is None:
            return
        yield found
        archive.members = []  # type: ignore[attr-defined] # they are kept otherwise, 1.3 million in all
