"""Evaluating five checkpoints of a run against evaluating one: five times the steps, and one start.

    python benchmarks/checkpoints.py --images 400

Whole commands, in turns: DenseNet-121 at 64 px, on shards that are written first.
"""

from __future__ import annotations

import argparse
import functools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from typing import Any, List

import input_pipeline
import side_by_side

CHECKPOINTS = 5
SIZE = 64  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400, help="of the validation split")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="checkpoints-") as folder:
        data_dir = input_pipeline.write_shards(os.path.join(folder, "data"), 100, 75, options)
        log_dir = os.path.join(folder, "run")
        common = ["--data_dir", data_dir, "--batch_size", 16]
        command(
            "train_keras.py", *common, "--log_dir", log_dir, "--image_size", SIZE, "--num_classes", 1000,
            "--mode", "train", "--max_train_steps", CHECKPOINTS, "--save_checkpoints_steps", 1,
            "--iterations_per_loop", 1,
        )  # fmt: skip
        one = os.path.join(log_dir, f"model.ckpt-{CHECKPOINTS}")
        sides = {
            side: functools.partial(command, "evaluate.py", "--eval_dir", path, *common)
            for side, path in (("all", log_dir), ("one", one))
        }
        found = side_by_side.in_turns(sides, options.rounds)
    for side, readings in found.items():
        print(f"{side}: {statistics.median(each['seconds'] for each in readings):.1f} s", flush=True)
    what = f"evaluating {CHECKPOINTS} checkpoints, {options.images} images, DenseNet-121, {SIZE} px"
    side_by_side.row(what, "evaluating one", side_by_side.ratios(found["all"], found["one"]))


def command(script: str, *arguments: Any) -> side_by_side.Reading:
    """What a command of the project took, which must succeed."""
    call: List[str] = [sys.executable, str(side_by_side.ROOT / script), *map(str, arguments)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done: List[Any] = []
    reading = side_by_side.reading(
        lambda: done.append(
            subprocess.run(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        )
    )
    if done[0].returncode:
        raise SystemExit(done[0].stdout.decode("utf-8", "replace"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    reading["cpu_seconds"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return reading


if __name__ == "__main__":
    main()
