"""The pictures of a source, before any is read: names, classes, splits and places, in columns.

ImageNet has 1.3 million of them; as Python objects they would take more memory than TensorFlow.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from typing import Dict, Optional, Sequence, Tuple

import numpy as np

from densenet_keras.data.records import TRAIN, VALIDATION

SPLITS = (TRAIN, VALIDATION)
UNDECIDED = len(SPLITS)  # in place of a split's number: to be drawn

_WHOLE_FILE = -1
# A picture, even an uncompressed one of 80 megapixels, is smaller; what is larger is not read into memory.
MAX_FILE_BYTES = 256_000_000


class Listing:
    """The pictures of a source, one row each, in an order that depends on the source alone.

    Attributes:
        classes: names of the classes' folders (or synsets), class 0 first.
        label: class number from 0, [n] int32.
        split: index into SPLITS, or UNDECIDED, [n] int8.
        size: bytes of the file, [n] int64.
        digest: names, sizes, times, classes and splits of all files, in a few characters.
        notes: what a person should know of the source, a sentence each.
    """

    def __init__(self, rows: ListingBuilder, classes: Sequence[str], notes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.notes = list(notes)
        self.label = np.frombuffer(rows.label, np.int32)
        self.split = np.frombuffer(rows.split, np.int8)
        self.size = np.frombuffer(rows.size, np.int64)
        self.digest = rows.digest(self.classes)
        self._names = bytes(rows.names)
        self._ends = np.frombuffer(rows.ends, np.int64)
        self._place = np.frombuffer(rows.place, np.int64)
        self._root = rows.root
        self._tars = rows.tars
        self._tar = np.frombuffer(rows.tar, np.int8)
        self._descriptors: Dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.label)

    def name(self, row: int) -> bytes:
        """The picture's path below the source's folder, as the file system spells it."""
        start = int(self._ends[row - 1]) if row else 0
        return self._names[start : int(self._ends[row])]

    def read(self, row: int) -> bytes:
        """The bytes of the picture; safe to call from several threads.

        Raises:
            OSError: it cannot be read.
        """
        place, size = int(self._place[row]), int(self.size[row])
        if place != _WHOLE_FILE:
            return os.pread(self._descriptors[int(self._tar[row])], size, place)
        # Half the system calls of open(): each lets go of Python's lock, and waits to get it back.
        descriptor = os.open(os.path.join(self._root, self.name(row)), os.O_RDONLY | os.O_CLOEXEC)
        try:
            read = os.read(descriptor, size)
            while len(read) < size:
                more = os.read(descriptor, size - len(read))
                if not more:  # it is shorter by now
                    break
                read += more
            return read
        finally:
            os.close(descriptor)

    def open(self) -> None:
        """Opens the source's tar files, if it has any, for `read`."""
        for number, path in enumerate(self._tars):
            self._descriptors[number] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Closes what `open` opened."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def rows_of(self, split: int) -> np.ndarray:
        """The rows of a split, in order, [n] int64."""
        return np.flatnonzero(self.split == split)

    def counts(self, split: int) -> np.ndarray:
        """Pictures of each class in a split, [classes] int64."""
        return np.bincount(self.label[self.split == split], minlength=len(self.classes))


class ListingBuilder:
    """Collects the rows of a listing."""

    def __init__(self, root: str, tars: Sequence[str] = ()) -> None:
        """
        Args:
            root: folder that the names of whole files are relative to.
            tars: archives that rows may lie in.
        """
        self.root = os.fsencode(root)
        self.tars = tuple(tars)
        self.names = bytearray()
        self.ends, self.size, self.place = array("q"), array("q"), array("q")
        self.label, self.split, self.tar = array("i"), array("b"), array("b")
        self._digest = hashlib.sha256()

    def __len__(self) -> int:
        return len(self.label)

    def add(
        self, name: bytes, label: int, split: int, status: Tuple[int, int],
        place: Optional[Tuple[int, int]] = None,
    ) -> None:  # fmt: skip
        """Adds a picture.

        Args:
            status: bytes of the file, and when it was changed (nanoseconds).
            place: number of the archive it lies in, and its first byte there; None for a file.
        """
        tar, start = place if place is not None else (0, _WHOLE_FILE)
        self.names += name
        self.ends.append(len(self.names))
        self.label.append(label)
        self.split.append(split)
        self.size.append(status[0])
        self.tar.append(tar)
        self.place.append(start)
        self._digest.update(b"%d %d %d %d %d %s\n" % (label, split, *status, len(name), name))

    def digest(self, classes: Sequence[str]) -> str:
        """What was listed, in a few characters."""
        whole = self._digest.copy()
        whole.update("\n".join(classes).encode("utf-8", "surrogateescape"))
        return whole.hexdigest()[:32]
