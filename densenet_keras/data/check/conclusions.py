"""What is wrong with a data set as a whole: labels, classes, names, shards, pictures that are there twice."""

from __future__ import annotations

import os
from typing import Dict, Iterator, Optional

from densenet_keras.data.check.findings import ERROR, WARNING, Finding, Place
from densenet_keras.data.check.tally import SPLITS, SplitTally, Tally
from densenet_keras.data.records import TRAIN, VALIDATION

_UNEVEN = 2  # times as many records in the largest shard as in the smallest


def conclusions(
    tally: Tally, label_offset: int, num_classes: Optional[int], names: Dict[int, str]
) -> Iterator[Finding]:
    """Everything that no single record shows.

    Args:
        label_offset: label of the first class.
        num_classes: how many there should be; None if nobody knows.
        names: label to name, as labels.txt has it.
    """
    for split in tally.splits.values():
        for label in sorted(split.labels):
            yield from _label(split, label, label_offset, num_classes)
    yield from _missing_classes(tally, label_offset, num_classes)
    yield from _names(tally, names)
    for split in tally.splits.values():
        yield from _shards(split)
        yield from _rotation(split)
    yield from _twice(tally)


def _error(kind: str, message: str, place: Optional[Place] = None) -> Finding:
    return Finding(ERROR, kind, message, place)


def _label(split: SplitTally, label: int, label_offset: int, num_classes: Optional[int]) -> Iterator[Finding]:
    """A label that is not a class, with how often it occurs."""
    first = split.first_of_label[label]
    what = f"label {label}, which {split.labels[label]} {split.name} records have,"
    if label == 0 < label_offset:
        message = f"{what} is what TF-Slim calls the background class, and no picture's; if it is your "
        message += "first class, give --label_offset 0 here and to every command"
        yield _error("label 0", message, first)
    elif label < 0:
        yield _error("negative label", f"{what} is not a class; many tools write -1 for unlabelled", first)
    elif label < label_offset:
        yield _error("label out of range", f"{what} is below --label_offset {label_offset}", first)
    elif num_classes is not None and label >= label_offset + num_classes:
        highest = label_offset + num_classes - 1
        yield _error("label out of range", f"{what} is above {highest}, the last of {num_classes}", first)


def _missing_classes(tally: Tally, label_offset: int, num_classes: Optional[int]) -> Iterator[Finding]:
    """Classes that a split does not have: nobody learns, or nobody evaluates them."""
    found = {
        name: {label for label in split.labels if label >= label_offset}
        for name, split in tally.splits.items()
    }
    everywhere = set().union(*found.values())
    count = num_classes or max(everywhere, default=label_offset) - label_offset + 1
    for name in SPLITS:
        missing = [n for n in range(label_offset, label_offset + count) if n not in found.get(name, {n})]
        if not missing or not found[name]:
            continue
        listed = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        message = f"{name} has no record of {len(missing)} of {count} classes (labels {listed})"
        if name == TRAIN and everywhere.intersection(missing):
            yield _error("missing classes", message + ", which validation asks for")
        else:
            yield Finding(WARNING, "missing classes", message)


def _names(tally: Tally, names: Dict[int, str]) -> Iterator[Finding]:
    """Names that contradict labels."""
    kind = "contradicting names"
    labels_of: Dict[str, int] = {}
    for label in sorted(tally.texts):
        texts = list(tally.texts[label].items())
        usual, usual_place = texts[0]
        for text, place in texts[1:]:
            yield _error(kind, f"label {label} is called {text!r} here and {usual!r} in {usual_place}", place)
        for text, place in texts:
            other = labels_of.setdefault(text, label)
            if other != label:
                # ImageNet has two classes called crane.
                message = f"{text!r} has label {label} here and {other} elsewhere"
                yield Finding(WARNING, "one name for two labels", message, place)
        if names.get(label, usual) != usual:
            message = f"label {label} is called {usual!r} here and {names[label]!r} in labels.txt"
            yield _error(kind, message, usual_place)


def _shards(split: SplitTally) -> Iterator[Finding]:
    for path, records in zip(split.paths, split.records):
        if not records:
            yield _error("empty shard", f"{os.path.basename(path)} holds no record; write the set anew")
    filled = [records for records in split.records if records]
    if filled and max(filled) > _UNEVEN * min(filled):
        message = f"the {split.name} shards hold from {min(filled)} to {max(filled)} records; tools that "
        message += "share them out by shard give some ranks more than others"
        yield Finding(WARNING, "uneven shards", message)


def _rotation(split: SplitTally) -> Iterator[Finding]:
    if split.first_rotated is not None:
        message = f"{split.rotated} {split.name} pictures lie on their side and say so in EXIF, which "
        message += "training does not follow; prepare turns such pictures upright"
        yield Finding(WARNING, "rotation in EXIF", message, split.first_rotated)


def _twice(tally: Tally) -> Iterator[Finding]:
    """The same bytes in both splits or under two labels."""
    copies = 0
    for group in tally.equal_pictures():
        places = {place.split: place for place, _ in reversed(group)}
        labels = {label: place for place, label in reversed(group)}
        if len(places) > 1:
            message = f"the picture is also {places[TRAIN]}: evaluation counts what was learned"
            yield _error("in both splits", message, places[VALIDATION])
        if len(labels) > 1:
            (first, place), (second, other) = sorted(labels.items())[:2]
            yield _error("two labels", f"the picture has label {first} here and {second} in {other}", place)
        copies += len(places) == 1 and len(labels) == 1
    if copies:
        message = f"{copies} pictures are there more than once, in one split under one label"
        yield Finding(WARNING, "copies", message)
