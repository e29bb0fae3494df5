"""`python -m densenet_keras check`: what is wrong with a data set."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any, List, Sequence

from densenet_keras import files
from densenet_keras.commands.progress import Progress
from densenet_keras.commands.tensorflow_import import import_tensorflow
from densenet_keras.data.check.findings import ERROR, WARNING
from densenet_keras.data.check.options import CheckOptions
from densenet_keras.errors import EXIT_DONE, EXIT_FAILED
from densenet_keras.settings.rules import refuse

if TYPE_CHECKING:
    from densenet_keras.data.check.job import Report

Settings = CheckOptions
EXAMPLE = "--data_dir my_data"

_SHOWN_OF_A_KIND = 5
_CLASSES_LISTED = 20  # of more, the smallest and the largest


def run(settings: Settings) -> int:
    """Prints what was found; returns 1 if something is wrong, 0 if not.

    Raises:
        UsageError: there is no data set.
        RunError: --json cannot be written.
    """
    if settings.json and not files.can_replace(settings.json):
        raise refuse("json", settings.json, "cannot be written; give a file in a folder that exists")
    import_tensorflow(log_level="3")  # what the decoders refuse is reported record by record
    from densenet_keras.backends import cpu
    from densenet_keras.data.check import job  # loads TensorFlow, which --help does not need

    cpu.look_for_accelerators()
    progress = Progress("MB", scale=1e6)
    try:
        report = job.check(settings, progress)
    finally:
        progress.close()
    print("\n".join([*_overview(report), *_findings(report, settings.json)]))
    if settings.json:
        files.write_report(settings.json, {"data_dir": settings.data_dir, **report.to_json()})
    return EXIT_FAILED if report.findings.number(ERROR) else EXIT_DONE


def _overview(report: Report) -> List[str]:
    """Tables of what there is."""
    from densenet_keras.data.check.job import PERCENTILES, percentiles

    splits = list(report.tally.splits.values())
    rows: List[Sequence[Any]] = [
        ("", *(split.name for split in splits)),
        ("shards", *(len(split.paths) for split in splits)),
        ("records", *(f"{sum(split.records):,}" for split in splits)),
        ("MB", *(f"{sum(map(os.path.getsize, split.paths)) / 1e6:,.1f}" for split in splits)),
        ("classes", *(len(split.labels) for split in splits)),
        ("pictures of a class", *(_span(list(split.labels.values())) for split in splits)),
    ]
    for kind in sorted({kind for split in splits for kind in split.kinds}):
        rows.append((kind, *(f"{split.kinds[kind]:,}" for split in splits)))
    lines = _table(rows)
    sides: List[Sequence[Any]] = [
        ("pixels", "smallest", *(f"{percent} %" for percent in PERCENTILES[1:-1]), "largest")
    ]
    for split in splits:
        for what, values in zip(("short side", "long side"), split.sides()):
            sides.append((f"{split.name}, {what}", *percentiles(values)))
    return [*lines, "", *_table(sides), "", *_table(_histogram(report)), ""]


def _histogram(report: Report) -> List[Sequence[Any]]:
    """Pictures of each class, or of those that have the fewest and the most."""
    splits = list(report.tally.splits.values())
    totals: Any = Counter()
    for split in splits:
        totals.update(split.labels)
    labels = sorted(totals)
    rows: List[Sequence[Any]] = [("label", "name", *(split.name for split in splits))]
    if len(labels) > _CLASSES_LISTED:
        by_size = sorted(labels, key=lambda label: (totals[label], label))
        labels = [*by_size[: _CLASSES_LISTED // 4], *by_size[-_CLASSES_LISTED // 4 :]]
        rows[0] = ("label, the fewest and the most", *rows[0][1:])
    for label in labels:
        names = [report.names.get(label, ""), *report.tally.texts.get(label, {})]
        name = next((name for name in names if name), "")
        rows.append((label, name[:40], *(split.labels[label] for split in splits)))
    return rows


def _findings(report: Report, json_file: str) -> List[str]:
    """The first of each kind, how many more there are, and the sum."""
    found = report.findings
    shown: Any = Counter()
    lines = []
    for finding in found.kept:
        shown[finding.kind] += 1
        if shown[finding.kind] <= _SHOWN_OF_A_KIND:
            lines.append(str(finding))
    for (level, kind), count in found.counts.items():
        if count > _SHOWN_OF_A_KIND:
            where = f"{json_file} lists them" if json_file else "--json FILE lists them"
            lines.append(f"{level}: {count - _SHOWN_OF_A_KIND} more of the kind {kind!r}; {where}")
    return [*lines, f"{found.number(ERROR)} errors, {found.number(WARNING)} warnings"]


def _span(counts: List[int]) -> str:
    if not counts:
        return "-"
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _table(rows: List[Sequence[Any]]) -> List[str]:
    """Rows with their columns lined up: the first to the left, the others to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in texts if place < len(row)) for place in range(len(texts[0]))]
    lines = []
    for row in texts:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        lines.append("  ".join(cells).rstrip())
    return lines
