"""What is wrong, one finding at a time, and how many there are of each kind."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, Dict, List, NamedTuple, Optional
from typing import Counter as CounterOf

ERROR, WARNING = "error", "warning"
KEPT_OF_A_KIND = 1000  # a set of wholly wrong labels would be repeated in the report otherwise


class Place(NamedTuple):
    """Where a record lies."""

    split: str
    path: str  # of the shard
    record: int  # number in the shard, from 0
    byte: int  # of the shard, where the record begins

    def __str__(self) -> str:
        return f"{os.path.basename(self.path)}, record {self.record} (byte {self.byte})"


class Finding(NamedTuple):
    """One thing that is wrong.

    Attributes:
        level: ERROR if training or evaluation would suffer from it, else WARNING.
        kind: a word or two, the same for findings of the same sort.
        place: the record, or None if it is not about one.
    """

    level: str
    kind: str
    message: str
    place: Optional[Place] = None

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place is not None else ""
        return f"{self.level}: {where}{self.message}"

    def to_json(self) -> Dict[str, Any]:
        """As a plain object."""
        plain: Dict[str, Any] = {"level": self.level, "kind": self.kind, "message": self.message}
        if self.place is not None:
            plain.update(
                split=self.place.split, file=self.place.path, record=self.place.record, byte=self.place.byte
            )
        return plain


class Findings:
    """All findings: the first of each kind, and how many there are.

    Attributes:
        kept: in the order in which they were found.
        counts: all, by (level, kind).
    """

    def __init__(self) -> None:
        self.kept: List[Finding] = []
        self.counts: CounterOf[Any] = Counter()

    def add(self, finding: Finding) -> None:
        """Takes a finding."""
        self.counts[finding.level, finding.kind] += 1
        if self.counts[finding.level, finding.kind] <= KEPT_OF_A_KIND:
            self.kept.append(finding)

    def number(self, level: str) -> int:
        """How many there are of a level."""
        return sum(count for (found, _), count in self.counts.items() if found == level)
