"""Speed of `predict` on picture files against `evaluate.py` on the same pictures as records.

    python benchmarks/predict.py --pictures 1000

Both run as whole commands, in turns, with densenet_tiny: the reading, not the network, is what differs.
The start of each command is in the figures, as users meet it. Printed is evaluate's time over predict's:
the median over rounds, the smallest and the largest; more than 1 means that predict is faster.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from typing import Iterator, List, Tuple

import numpy as np
import side_by_side
from PIL import Image

WIDTH, HEIGHT = 500, 375  # pixels, near ImageNet's mean
CLASSES = 4
NOISE = 8.0  # standard deviation, in grey levels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        pictures, data, run = (os.path.join(name, part) for part in ("pictures", "data", "run"))
        _write_pictures(pictures, options.pictures)
        _run("-m", "densenet_keras", "prepare", pictures, "--data_dir", data)
        _run(
            "train_keras.py", "--model", "densenet_tiny", "--data_dir", data, "--log_dir", run,
            "--num_classes", str(CLASSES), "--image_size", str(options.image_size), "--batch_size", "4",
            "--max_train_steps", "1", "--mode", "train",
        )  # fmt: skip
        batch = ("--batch_size", str(options.batch_size))
        evaluate = ("evaluate.py", "--eval_dir", run, "--data_dir", data, *batch)
        predict = ("-m", "densenet_keras", "predict", "--restore", run, os.path.join(pictures, "val"), *batch)
        rounds = [(_run(*evaluate), _run(*predict)) for _ in range(options.rounds)]
    evaluated, predicted = zip(*rounds)
    for kind, of in (("wall clock", "seconds"), ("processor time", "cpu_seconds")):
        print(_summary(kind, side_by_side.ratios(evaluated, predicted, of)))


def _summary(kind: str, ratios: List[float]) -> str:
    return (
        f"predict at {statistics.median(ratios):.2f} of evaluate's speed by {kind} "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


def _write_pictures(folder: str, count: int) -> None:
    """`count` JPEGs to validate with and a few to train with, in class folders."""
    for number, (split, picture) in enumerate(_pictures(count)):
        place = os.path.join(folder, split, f"class{number % CLASSES}")
        os.makedirs(place, exist_ok=True)
        picture.save(os.path.join(place, f"{number:05d}.jpg"), quality=90)


def _pictures(count: int) -> Iterator[Tuple[str, Image.Image]]:
    random = np.random.RandomState(0)
    for number in range(count + 2 * CLASSES):
        coarse = random.randint(0, 256, (HEIGHT // 12, WIDTH // 12, 3)).astype(np.uint8)
        smooth = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.BICUBIC)
        pixels = np.asarray(smooth) + random.normal(0.0, NOISE, (HEIGHT, WIDTH, 1))
        split = "train" if number < 2 * CLASSES else "val"
        yield split, Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _run(*command: str) -> side_by_side.Reading:
    """What a command of the project takes, which must succeed."""
    return side_by_side.run_command([sys.executable, "-W", "ignore", *command])


if __name__ == "__main__":
    main()
