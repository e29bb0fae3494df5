"""The first index of a data set against reading its files with cat.

    python benchmarks/first_index.py --megabytes 400

The index reads every byte and compares every checksum. Both sides start without the files in memory, as on
the first start of a run: the wall-clock ratio is what a user waits. A second row has the files in memory and
counts processor time: what the index costs where the disk costs nothing.
"""

from __future__ import annotations

import argparse
import functools
import os
import resource
import subprocess
import tempfile
from typing import Callable, Dict, List

import side_by_side

from densenet_keras.data import index_scan

RECORD_BYTES = 110_000  # ImageNet's mean
SHARDS = 8
PICTURES = 32  # that differ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="first-index-") as folder:
        # A picture's first bytes and noise: nobody decodes them.
        noise = [b"\xff\xd8\xff" + os.urandom(RECORD_BYTES) for _ in range(PICTURES)]
        records = options.megabytes * 10**6 // RECORD_BYTES
        paths = side_by_side.write_shards(os.path.join(folder, "data"), noise, records, SHARDS)
        sides: Dict[str, Callable[[], side_by_side.Reading]] = {
            "index": functools.partial(read_cold, paths, index),
            "cat": functools.partial(read_cold, paths, cat),
        }
        cold = side_by_side.in_turns(sides, options.rounds)
        sides = {"index": functools.partial(index, paths), "cat": functools.partial(cat, paths)}
        warm = side_by_side.in_turns(sides, options.rounds)
    what = f"first index, {options.megabytes} MB of {RECORD_BYTES // 1000} KB records"
    for name, found, of in (("from the disk", cold, "seconds"), ("in memory", warm, "cpu_seconds")):
        ratios = side_by_side.ratios(found["index"], found["cat"], of)
        how = "wall-clock time" if of == "seconds" else ""
        side_by_side.row(f"{what}, {name}", "cat of the same files", ratios, how)


def index(paths: List[str]) -> side_by_side.Reading:
    return side_by_side.reading(functools.partial(index_scan.build, paths))


def cat(paths: List[str]) -> side_by_side.Reading:
    watch = side_by_side.Stopwatch(resource.RUSAGE_CHILDREN)
    subprocess.run(["cat", *paths], stdout=subprocess.DEVNULL, check=True)
    return watch.reading()


def read_cold(paths: List[str], read: Callable[[List[str]], side_by_side.Reading]) -> side_by_side.Reading:
    """`read` of files that the system does not hold in memory."""
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return read(paths)


if __name__ == "__main__":
    main()
