"""Several ranks with a thread each against one rank with two threads, the same images in every step.

    python benchmarks/ranks.py --image_size 64 --global_batch 16
    python benchmarks/ranks.py --model densenet_tiny --image_size 32 --ranks 2,4,8

Whole commands, in turns, on pictures in memory. A step's time is that of the run's own metrics,
the median without the first steps; by the clock, since ranks wait for each other.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import tempfile
from typing import Any, Dict

import side_by_side

FIRST_STEPS = 3  # that do not count
CORES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="densenet121")
    parser.add_argument("--ranks", default=f"{CORES}", help="numbers of ranks (default %(default)s)")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--global_batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    numbers = [int(text) for text in options.ranks.split(",")]
    sides = {f"{ranks}": functools.partial(train, options, ranks) for ranks in (1, *numbers)}
    found = side_by_side.in_turns(sides, options.rounds)
    network = f"{options.model}, {options.image_size} px"
    for side, readings in found.items():
        for what, name in (("step by the clock", "seconds"), ("whole command", "cpu_seconds")):
            cost = statistics.median(each[name] for each in readings)
            side_by_side.point(f"ranks on {CORES} cores", int(side), f"{what}, {network}", cost, "s")
    for ranks in numbers:
        what = f"a step of {ranks} ranks with a thread each, {network}"
        ratios = side_by_side.ratios(found[f"{ranks}"], found["1"], "seconds")
        side_by_side.row(what, f"one rank with {CORES} threads", ratios, "wall-clock time")


def train(options: argparse.Namespace, ranks: int) -> side_by_side.Reading:
    """Seconds for a global batch, and processor seconds in all, of a run with so many ranks."""
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        settings: Dict[str, Any] = {
            "model": options.model,
            "rank_size": ranks,
            "image_size": options.image_size,
            "batch_size": options.global_batch // ranks,
            "intra_op_threads": CORES if ranks == 1 else 1,
            "max_train_steps": options.steps,
            "synthetic_data": "true",
            "mode": "train",
            "iterations_per_loop": 1,
            "backend": "tensorflow",
            "log_dir": folder,
        }
        taken = side_by_side.run_command(side_by_side.command("train_keras.py", settings))
        with open(os.path.join(folder, "metrics.jsonl"), encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
    speeds = [line["images_per_second"] for line in lines if line.get("images_per_second")]
    return {**taken, "seconds": options.global_batch / statistics.median(speeds[FIRST_STEPS:])}


if __name__ == "__main__":
    main()
