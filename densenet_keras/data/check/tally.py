"""What all records of a data set say together."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from typing import Counter as CounterOf
from typing import Dict, List, Optional, Tuple

import numpy as np

from densenet_keras.data import digests
from densenet_keras.data.check.findings import Place
from densenet_keras.data.check.records import Facts
from densenet_keras.data.records import TRAIN, VALIDATION

SPLITS = (TRAIN, VALIDATION)


class SplitTally:
    """The records of one split, counted.

    Attributes:
        records: of each shard, in the order of `paths`; damaged ones included.
        labels: how often each label occurs.
        first_of_label: the first record of each label.
        kinds: how often each format occurs.
        rotated: pictures whose EXIF asks to turn them; `first_rotated` is the first.
        number_of: path of a shard to its number.
    """

    def __init__(self, name: str, paths: List[str]) -> None:
        self.name, self.paths = name, paths
        self.records = [0] * len(paths)
        self.labels: CounterOf[int] = Counter()
        self.first_of_label: Dict[int, Place] = {}
        self.kinds: CounterOf[str] = Counter()
        self.rotated = 0
        self.first_rotated: Optional[Place] = None
        self.number_of = {path: number for number, path in enumerate(paths)}
        self.heights, self.widths = array("i"), array("i")

    def add(self, facts: Facts) -> None:
        """Counts a record."""
        self.records[self.number_of[facts.place.path]] = facts.place.record + facts.is_record
        if facts.label is not None:
            self.labels[facts.label] += 1
            self.first_of_label.setdefault(facts.label, facts.place)
        if facts.kind:
            self.kinds[facts.kind] += 1
            self.heights.append(facts.height)
            self.widths.append(facts.width)
        if facts.rotated:
            self.rotated += 1
            self.first_rotated = self.first_rotated or facts.place

    def sides(self) -> Tuple[np.ndarray, np.ndarray]:
        """Shorter and longer side of each picture, pixels."""
        both = np.array([self.heights, self.widths], np.int32)
        return both.min(axis=0), both.max(axis=0)


class Tally:
    """The records of all splits, counted.

    Attributes:
        texts: for each label and each text that came with it, the first record.
    """

    def __init__(self, splits: Dict[str, List[str]]) -> None:
        self.splits = {name: SplitTally(name, paths) for name, paths in splits.items()}
        self.texts: Dict[int, Dict[str, Place]] = defaultdict(dict)
        # Of each decoded picture: its digest and where it lies; a Place each would take 300 MB for ImageNet.
        self._digests = bytearray()
        self._split, self._shard, self._label = array("b"), array("i"), array("q")
        self._record, self._byte = array("i"), array("q")

    def add(self, facts: Facts) -> None:
        """Counts a record."""
        split = self.splits[facts.place.split]
        split.add(facts)
        if facts.label is not None and facts.text:
            self.texts[facts.label].setdefault(facts.text, facts.place)
        if facts.digest:
            self._digests += facts.digest
            self._split.append(SPLITS.index(facts.place.split))
            self._shard.append(split.number_of[facts.place.path])
            self._label.append(facts.label if facts.label is not None else -1)
            self._record.append(facts.place.record)
            self._byte.append(facts.place.byte)

    def equal_pictures(self) -> List[List[Tuple[Place, int]]]:
        """Groups of (record, label) whose pictures have the same bytes."""
        groups = digests.equal_groups(digests.stacked(bytes(self._digests)))
        return [[(self._place(int(number)), self._label[number]) for number in group] for group in groups]

    def _place(self, number: int) -> Place:
        split = self.splits[SPLITS[self._split[number]]]
        path = split.paths[self._shard[number]]
        return Place(split.name, path, self._record[number], self._byte[number])
