"""Runs the benchmarks one after the other and writes their tables and pictures: `make bench`.

    python benchmarks/report.py [--only train_step]

Puts the rows between the markers in docs/performance.md and a picture of them in docs/performance.svg. A row
is a ratio that one run measured against its peer. What something costs at several sizes goes to
docs/scaling.md and docs/growth.svg. A benchmark that fails leaves the old files as they are.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import subprocess
import sys
import time
from typing import Any, Dict, List

import growth_picture
import side_by_side

from densenet_keras import files

DOCS = side_by_side.ROOT / "docs"
# Sizes that end within 25 minutes on two cores of their own.
RUNS = (
    "train_step.py --image_size 224 --batch_size 16 --steps 1 --blocks 3 --sides ours,keras,product",
    "train_step.py --image_size 224 --batch_size 16 --steps 1 --blocks 3 --sides recompute,ours",
    "train_step.py --image_size 128 --batch_size 16 --steps 1 --blocks 3 --sides ours,plain,gradients",
    "evaluation.py --image_size 224 --batch_size 32 --blocks 4",
    "ranks.py --image_size 224 --steps 8 --rounds 2",
    "ranks.py --image_size 64 --steps 12 --rounds 2",
    "ranks.py --model densenet_tiny --image_size 32 --global_batch 64 --steps 30 --ranks 2,4,8 --rounds 1",
    "checkpoints.py --rounds 1",
    "start.py --image_size 64 --rounds 2",
    "start.py --image_size 224 --rounds 2",
    "usage.py",
    "freezing.py --image_size 64 --rounds 3 --steps 3",
    "loop_cost.py --iterations_per_loop 1 --rounds 7",
    "loop_cost.py --iterations_per_loop 100 --rounds 7",
    "input_pipeline.py --threads 1 --rounds 3 --batches 8",
    "input_pipeline.py --threads 2 --rounds 3 --batches 8",
    "first_index.py --rounds 5",
    "growth.py",
)
TABLES = {"performance.md": "bench", "scaling.md": "growth"}  # page of the documentation to its marker
Row = Dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="run benchmarks whose command begins so; writes nothing")
    options = parser.parse_args()
    for name in TABLES:
        with_table(name, "")  # pages that will not take their tables are known before 25 minutes of work
    lines: List[str] = []
    started = time.monotonic()
    for number, command in enumerate(RUNS, start=1):
        if command.startswith(options.only):
            minutes = (time.monotonic() - started) / 60
            print(f"[{number} of {len(RUNS)}, {minutes:.0f} min] {command}", flush=True)
            lines += run(command)
    if not options.only:
        write(lines)


def run(command: str) -> List[str]:
    """What one benchmark prints."""
    script, *arguments = command.split()
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), script)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", path, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{command} failed with exit code {done.returncode}; nothing was written")
    lines = done.stdout.splitlines()
    for line in lines:
        if not line.startswith((side_by_side.ROW, side_by_side.POINT)):
            print(line, flush=True)
    return lines


def write(lines: List[str]) -> None:
    """Puts tables and pictures into the documentation."""
    rows, points = marked(lines, side_by_side.ROW), marked(lines, side_by_side.POINT)
    pages = {
        "performance.md": with_table("performance.md", table(rows)),
        "performance.svg": picture(rows),
        "scaling.md": with_table("scaling.md", growth_picture.table(points)),
        "growth.svg": growth_picture.picture(points),
    }
    for name, content in pages.items():
        with files.whole_file(str(DOCS / name)) as file:
            file.write(content)


def marked(lines: List[str], mark: str) -> List[Row]:
    """The results whose lines begin with `mark`."""
    return [json.loads(line[len(mark) :]) for line in lines if line.startswith(mark)]


def with_table(name: str, content: str) -> str:
    """A page of the documentation with `content` between its markers."""
    marker = TABLES[name]
    before, begin, rest = (DOCS / name).read_text(encoding="utf-8").partition(f"<!-- {marker} -->\n")
    _, end, after = rest.partition(f"<!-- /{marker} -->")
    if not end:
        raise SystemExit(f"docs/{name} has no lines <!-- {marker} --> and <!-- /{marker} -->")
    return before + begin + content + end + after


def table(rows: List[Row]) -> str:
    """Markdown: a line for each row."""
    lines = ["| what | compared with | ratio | rounds | of |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['what']} | {row['peer']} | {row['ratio']:.2f} | {row['low']:.2f} to {row['high']:.2f} | "
        f"{row['how']} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def picture(rows: List[Row]) -> str:
    """An SVG with a bar for each ratio and a line at 1."""
    width, height, left, unit = 1000, 26, 620, 220  # pixels; `unit` is the length of a ratio of 1
    parts = []
    for number, row in enumerate(rows):
        y = height * number + 6
        length = min(unit * row["ratio"], width - left - 60)
        label = html.escape(f"{row['what']} / {row['peer']}")
        label = label if len(label) < 105 else label[:102] + "..."
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{label}</text>')
        parts.append(f'<rect x="{left}" y="{y}" width="{length:.0f}" height="18" fill="#4878a8"/>')
        parts.append(f'<text x="{left + length + 6:.0f}" y="{y + 13}">{row["ratio"]:.2f}</text>')
    bottom = height * len(rows) + 6
    parts.append(f'<path d="M{left + unit} 0V{bottom}" stroke="#000" stroke-dasharray="3 3"/>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom}" font-family="sans-serif" '
        f'font-size="11">\n<title>Ratios of the benchmarks; less is better</title>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    main()
