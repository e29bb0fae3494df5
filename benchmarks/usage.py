"""The help and a wrong flag against a Python that does nothing: what one waits before any work.

    python benchmarks/usage.py

Whole commands, in turns, without TensorFlow being loaded.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from typing import List

import side_by_side

from densenet_keras.errors import EXIT_USAGE

PEER = "Python's own start"
SIDES = {
    "train_keras.py --help": (["train_keras.py", "--help"], 0),
    "train_keras.py with a wrong flag": (["train_keras.py", "--learning_rat", "0.1"], EXIT_USAGE),
    PEER: (["-c", "pass"], 0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    sides = {name: functools.partial(run, arguments, code) for name, (arguments, code) in SIDES.items()}
    found = side_by_side.in_turns(sides, options.rounds)
    for name, readings in found.items():
        seconds = statistics.median(each["cpu_seconds"] for each in readings)
        print(f"{name}: {1000 * seconds:.0f} ms of processor time", flush=True)
    for name, readings in found.items():
        if name != PEER:
            side_by_side.row(name, PEER, side_by_side.ratios(readings, found[PEER]))


def run(arguments: List[str], code: int) -> side_by_side.Reading:
    return side_by_side.run_command([sys.executable, *arguments], code)


if __name__ == "__main__":
    main()
