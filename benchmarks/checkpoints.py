"""Evaluating five checkpoints of a run against evaluating one: five times the steps, and one start.

    python benchmarks/checkpoints.py --images 400

Whole commands, in turns: DenseNet-121 at 64 px, on shards that are written first.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import tempfile
from typing import Any, Dict

import side_by_side

CHECKPOINTS = 5
SIZE = 64  # pixels
PICTURE = (100, 75)  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400, help="of the validation split")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="checkpoints-") as folder:
        data_dir, log_dir = os.path.join(folder, "data"), os.path.join(folder, "run")
        pictures = side_by_side.photographs(*PICTURE)
        side_by_side.write_shards(data_dir, pictures, options.images, options.shards)
        common: Dict[str, Any] = {"data_dir": data_dir, "batch_size": 16}
        training: Dict[str, Any] = {
            "log_dir": log_dir,
            "image_size": SIZE,
            "num_classes": 1000,
            "mode": "train",
            "max_train_steps": CHECKPOINTS,
            "save_checkpoints_steps": 1,
            "iterations_per_loop": 1,
        }
        side_by_side.run_command(side_by_side.command("train_keras.py", {**common, **training}))
        one = os.path.join(log_dir, f"model.ckpt-{CHECKPOINTS}")
        commands = {
            side: side_by_side.command("evaluate.py", {"eval_dir": path, **common})
            for side, path in (("all", log_dir), ("one", one))
        }
        sides = {side: functools.partial(side_by_side.run_command, each) for side, each in commands.items()}
        found = side_by_side.in_turns(sides, options.rounds)
    for side, count in (("one", 1), ("all", CHECKPOINTS)):
        cost = statistics.median(each["cpu_seconds"] for each in found[side])
        side_by_side.point("checkpoints", count, "evaluating them", cost, "s")
    what = f"evaluating {CHECKPOINTS} checkpoints, {options.images} images, DenseNet-121, {SIZE} px"
    side_by_side.row(what, "evaluating one", side_by_side.ratios(found["all"], found["one"]))


if __name__ == "__main__":
    main()
