"""From the command to the first finished step: train_keras.py against tf.keras.applications with fit.

    python benchmarks/start.py --image_size 64 --batch_size 8

Each start is a process of its own, from its first instruction to the line that says the first step is done:
DenseNet-121 with 1,000 classes on pictures in memory. Wall-clock time, since that is what one waits for; only
the ratio of rounds that alternate means anything.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List

import side_by_side

SIDES = {"ours": "train_keras.py", "keras": "tf.keras.applications with fit"}
NUM_CLASSES = 1000
DONE = "step:"  # begins the line of a step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        keras(options)
        return
    theirs = [sys.executable, "-W", "ignore", __file__, *sys.argv[1:], "--worker"]
    sides = {"ours": functools.partial(ours, options), "keras": functools.partial(start, theirs)}
    found = side_by_side.in_turns(sides, options.rounds)
    for side, name in SIDES.items():
        seconds = statistics.median(each["seconds"] for each in found[side])
        print(f"{name}: {seconds:.1f} s", flush=True)
    what = f"from the command to the first finished step, DenseNet-121, {options.image_size} px"
    ratios = side_by_side.ratios(found["ours"], found["keras"], "seconds")
    side_by_side.row(what, SIDES["keras"], ratios, "wall-clock time")


def start(command: List[str]) -> side_by_side.Reading:
    """Seconds until `command` says that a step is done; it is ended then."""
    begun = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(DONE):
            break
    else:
        raise SystemExit(f"{command} ended with {process.wait()} before its first step")
    seconds = time.monotonic() - begun
    process.kill()  # the ranks of a killed launcher end by themselves
    process.communicate()
    return {"seconds": seconds}


def ours(options: argparse.Namespace) -> side_by_side.Reading:
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        settings: Dict[str, Any] = {
            "image_size": options.image_size,
            "batch_size": options.batch_size,
            "num_classes": NUM_CLASSES,
            "synthetic_data": "true",
            "mode": "train",
            "max_train_steps": 1000,
            "iterations_per_loop": 1,
            "backend": "tensorflow",
            "log_dir": folder,
        }
        return start(side_by_side.command("train_keras.py", settings))


def keras(options: argparse.Namespace) -> None:
    """The usual script."""
    import numpy as np
    import tensorflow as tf

    class Say(tf.keras.callbacks.Callback):
        def on_batch_end(self, batch: int, logs: Any = None) -> None:
            print(DONE, flush=True)

    size = options.image_size
    model = tf.keras.applications.DenseNet121(weights=None, input_shape=(size, size, 3), classes=NUM_CLASSES)
    optimizer = tf.keras.optimizers.SGD(side_by_side.LEARNING_RATE, momentum=0.9, nesterov=True)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    images = np.random.randn(options.batch_size, size, size, 3).astype(np.float32)
    labels = np.random.randint(0, NUM_CLASSES, options.batch_size)
    model.fit(images, labels, batch_size=options.batch_size, epochs=1, verbose=0, callbacks=[Say()])


if __name__ == "__main__":
    main()
