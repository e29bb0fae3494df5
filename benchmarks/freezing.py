"""Processor time of a training step with frozen parts against one that trains everything.

    python benchmarks/freezing.py --image_size 64 --batch_size 8

All networks are in one process; blocks of steps of each take turns, so that all meet the same machine. The
first block of each, with the first run in it, does not count. Printed is, for each --freeze, the median
over rounds of its processor time over that of no freezing, and the smallest and largest of them.
"""

from __future__ import annotations

import argparse
import contextlib
import functools

import side_by_side

NOTHING = "none"
PARTS = (NOTHING, "block2", "all")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="densenet121")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1, help="intra-op threads")
    parser.add_argument("--rounds", type=int, default=5, help="counted blocks of each")
    parser.add_argument("--steps", type=int, default=6, help="steps in a block")
    options = parser.parse_args()
    settings = {
        "model": options.model,
        "image_size": options.image_size,
        "batch_size": options.batch_size,
        "num_classes": 10,
        "intra_op_threads": options.threads,
    }
    with contextlib.ExitStack() as stack:
        blocks = {
            part: stack.enter_context(side_by_side.training(options.steps, freeze=part, **settings))
            for part in PARTS
        }
        sides = {part: functools.partial(side_by_side.reading, block) for part, block in blocks.items()}
        found = side_by_side.in_turns(sides, options.rounds)
    what = f"training step, {options.model}, {options.image_size} px, batch {options.batch_size}, --freeze"
    for part in PARTS[1:]:
        values = side_by_side.ratios(found[part], found[NOTHING])
        side_by_side.row(f"{what} {part}", "training everything", values)


if __name__ == "__main__":
    main()
