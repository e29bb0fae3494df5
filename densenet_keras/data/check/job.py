"""The whole check: shards found, records examined in threads, conclusions drawn, all of it as a report."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from densenet_keras.data import classes
from densenet_keras.data.check import records as examining
from densenet_keras.data.check.conclusions import conclusions
from densenet_keras.data.check.findings import ERROR, WARNING, Finding, Findings
from densenet_keras.data.check.options import CheckOptions
from densenet_keras.data.check.tally import SPLITS, SplitTally, Tally
from densenet_keras.data.decoder import Decoder
from densenet_keras.data.in_order import in_order
from densenet_keras.data.shards import find_shards
from densenet_keras.errors import UsageError
from densenet_keras.topology import available_cores

Progress = Callable[[int, int], None]
PERCENTILES = (0, 5, 50, 95, 100)


class Report(NamedTuple):
    """What was found."""

    tally: Tally
    findings: Findings
    names: Dict[int, str]  # label to name, as labels.txt has it

    def to_json(self) -> Dict[str, Any]:
        """All of it as plain objects."""
        return {
            "splits": {name: _split_json(split) for name, split in self.tally.splits.items()},
            "names": {str(label): name for label, name in self.names.items()},
            "errors": self.findings.number(ERROR),
            "warnings": self.findings.number(WARNING),
            "counts": [
                {"level": level, "kind": kind, "number": count}
                for (level, kind), count in self.findings.counts.items()
            ],
            "findings": [finding.to_json() for finding in self.findings.kept],
        }


def check(options: CheckOptions, progress: Optional[Progress] = None) -> Report:
    """Examines every record of the data set.

    Args:
        progress: called with (bytes read, bytes in all).

    Raises:
        UsageError: there is no shard of either split, or labels.txt cannot be used.
    """
    findings = Findings()
    names = _names(options)
    tally = Tally(_shards(options.data_dir, findings))
    total = sum(os.path.getsize(path) for split in tally.splits.values() for path in split.paths)
    done = 0
    decoder = Decoder()
    try:
        examiner = examining.Examiner(decoder)
        threads = options.data_threads or available_cores()
        sizes: List[int] = []  # of chunks that are under way

        def chunks() -> Iterator[Tuple[int, List[Any]]]:
            for name, split in tally.splits.items():
                for size, chunk in examining.chunks(name, split.paths):
                    sizes.append(size)
                    yield size, chunk

        with contextlib.closing(in_order(examiner.chunk, chunks(), threads)) as examined:
            for _, found in examined:
                for facts in found:
                    tally.add(facts)
                    for finding in facts.findings:
                        findings.add(finding)
                done += sizes.pop(0)
                if progress is not None:
                    progress(done, total)
    finally:
        decoder.close()
    num_classes = options.num_classes
    if num_classes is None and names:
        num_classes = max(names) - options.label_offset + 1
    for finding in conclusions(tally, options.label_offset, num_classes, names):
        findings.add(finding)
    return Report(tally, findings, names)


def _names(options: CheckOptions) -> Dict[int, str]:
    path = os.path.join(options.data_dir, classes.LABELS_FILE)
    return classes.read_labels(path, options.label_offset) if os.path.exists(path) else {}


def _shards(data_dir: str, findings: Findings) -> Dict[str, List[str]]:
    """The shards of the splits that are whole; what is wrong with the others is a finding."""
    found: Dict[str, List[str]] = {}
    refused: List[UsageError] = []
    for name in SPLITS:
        try:
            found[name] = find_shards(data_dir, name)
        except UsageError as error:
            refused.append(error)
    if not found:
        raise refused[0]
    for refusal in refused:
        findings.add(Finding(ERROR, "missing shards", str(refusal)))
    return found


def _split_json(split: SplitTally) -> Dict[str, Any]:
    short, long = split.sides()
    sizes = {
        side: dict(zip(map(str, PERCENTILES), percentiles(values)))
        for side, values in (("short_side", short), ("long_side", long))
    }
    return {
        "records": sum(split.records),
        "shards": [{"file": path, "records": count} for path, count in zip(split.paths, split.records)],
        "labels": {str(label): split.labels[label] for label in sorted(split.labels)},
        "formats": dict(split.kinds),
        "size_percentiles": sizes,
    }


def percentiles(values: np.ndarray) -> List[int]:
    """PERCENTILES of `values`, [] if there are none."""
    if not len(values):
        return []
    in_order_of_size = np.sort(values)
    return [int(in_order_of_size[round(percent / 100 * (len(values) - 1))]) for percent in PERCENTILES]
