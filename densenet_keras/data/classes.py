"""The classes of a data set: how many, and what they are called. No TensorFlow.

labels.txt beside the shards says it, in the form of TF-Slim's: a line `label:name` for each class, with
the label that the records store. A list of bare names counts too: its first line is the first class.
Where there is no such file, the records' own image/class/text names the classes if it does so without
contradiction, and the labels tell how many there are.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Dict, Iterator, Optional, Sequence, Tuple

import numpy as np

from densenet_keras import files
from densenet_keras.checkpoints import run_folder
from densenet_keras.data import tfrecord
from densenet_keras.data.record_reader import RecordReader
from densenet_keras.data.records import BadRecord, Split
from densenet_keras.errors import UsageError

LABELS_FILE = "labels.txt"
TEXT_KEY = "image/class/text"

_RECORDS_ASKED = 4  # of each class, over the whole split: its first, its last and two between


@dataclass(frozen=True)
class Classes:
    """The classes of a data set, class 0 being the one with label `label_offset`.

    Attributes:
        count: how many there are.
        names: one for each class, or None if not all are known.
    """

    count: int
    names: Optional[Tuple[str, ...]] = None

    def name(self, number: int) -> str:
        """What class `number` (from 0) is called; its number where no name is known."""
        return self.names[number] if self.names is not None else str(number)


def find(data_dir: str, label_offset: int, splits: Sequence[Split] = ()) -> Classes:
    """The classes of the data set in `data_dir`.

    Args:
        label_offset: label of the first class in the records.
        splits: opened splits of it; asked where labels.txt is missing, and the labels that they hold
            must be among those of labels.txt.

    Raises:
        UsageError: a labels.txt that cannot be used, or neither such a file nor splits.
    """
    path = os.path.join(data_dir, LABELS_FILE)
    highest = max((int(split.label[split.good].max()) for split in splits), default=None)
    if not os.path.exists(path):
        if highest is None:
            raise UsageError(f"{path} does not exist, and no records tell the classes; give --num_classes")
        count = highest - label_offset + 1
        return Classes(count, _names_in_records(splits, label_offset, count))
    named = read_labels(path, label_offset)
    if highest is not None and highest > max(named):
        raise UsageError(
            f"{path} names the labels {min(named)} to {max(named)}, but records in {data_dir} hold label "
            f"{highest}; correct the file, or remove it"
        )
    count = max(named) - label_offset + 1
    if count < 1:
        raise UsageError(
            f"{path} names no label from --label_offset {label_offset} on; give --label_offset {min(named)}"
        )
    names = [named.get(label) for label in range(label_offset, label_offset + count)]
    return Classes(count, tuple(name for name in names if name is not None) if None not in names else None)


def of_checkpoint(path: str, label_offset: int) -> Optional[Tuple[str, ...]]:
    """What the classes of the network in checkpoint `path` are called; None where nobody said.

    The labels.txt of its run folder says it, or its manifest.

    Raises:
        UsageError: the labels.txt cannot be used.
    """
    folder = os.path.dirname(path) or "."
    if os.path.exists(os.path.join(folder, LABELS_FILE)):
        return find(folder, label_offset).names
    names = run_folder.of_checkpoint(path, "class_names")
    return tuple(names) if names else None


def write(folder: str, names: Optional[Sequence[str]], label_offset: int) -> None:
    """Leaves a labels.txt in `folder`; nothing where no names are known."""
    if names is not None:
        with files.whole_file(os.path.join(folder, LABELS_FILE)) as file:
            file.write(labels_text(names, label_offset))


def labels_text(names: Sequence[str], label_offset: int) -> str:
    """What a labels.txt of these classes holds."""
    return "".join(f"{label_offset + number}:{name}\n" for number, name in enumerate(names))


def read_labels(path: str, label_offset: int) -> Dict[int, str]:
    """Label to name, from a labels.txt.

    Args:
        label_offset: label of the first line in a file of bare names.

    Raises:
        UsageError: the file cannot be read, is empty, or names a label twice.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.rstrip("\r\n") for line in file]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UsageError(f"{path} cannot be read: {reason}") from error
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise UsageError(f"{path} is empty; it must hold a line label:name for each class")
    numbered = [re.fullmatch(r"\s*(\d+):(.*)", line) for line in lines]
    if not all(numbered):
        return {label_offset + number: line.strip() for number, line in enumerate(lines)}
    named: Dict[int, str] = {}
    for match in numbered:
        assert match is not None
        label = int(match.group(1))
        if label in named:
            raise UsageError(f"{path} names label {label} twice; leave one line of the two")
        named[label] = match.group(2).strip()
    return named


def _names_in_records(splits: Sequence[Split], label_offset: int, count: int) -> Optional[Tuple[str, ...]]:
    """The name that all records asked give a class; None if a class has none, or more than one.

    A record that is bad is not asked: who needs it will say so.
    """
    found: Dict[int, set] = defaultdict(set)
    for split in splits:
        for record, text in _texts(split, _asked(split)):
            found[int(split.label[record]) - label_offset].add(text)
    names = [found.get(number, set()) for number in range(count)]
    if any(len(texts) != 1 or None in texts for texts in names):
        return None
    single = tuple(texts.pop() for texts in names)
    # They need not all be different: ImageNet has two classes called crane.
    return single if len(set(single)) > 1 else None


def _asked(split: Split) -> np.ndarray:
    """Numbers of some records of each class, in order."""
    by_label = split.good[np.argsort(split.label[split.good], kind="stable")]
    firsts = np.flatnonzero(np.diff(split.label[by_label], prepend=split.label[by_label[0]] - 1))
    ends = np.append(firsts[1:], len(by_label))
    places = np.linspace(firsts, ends - 1, _RECORDS_ASKED).astype(np.int64)
    return np.sort(by_label[np.unique(places)])


def _texts(split: Split, records: np.ndarray) -> Iterator[Tuple[int, Optional[str]]]:
    """(record, its image/class/text, None where it has none) of those that are not bad."""
    with contextlib.closing(RecordReader(split)) as reader:
        for record in records:
            try:
                payload = reader.payloads(np.array([record]))[0]
            except BadRecord:
                continue
            yield int(record), _text(payload)


def _text(payload: bytes) -> Optional[str]:
    values = tfrecord.read_example(payload).get(TEXT_KEY, [])
    if len(values) != 1 or not isinstance(values[0], bytes) or not values[0]:
        return None
    return values[0].decode("utf-8", "replace")
