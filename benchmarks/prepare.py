"""`prepare` against bare decoding of the same files with the same threads.

    python benchmarks/prepare.py [--pictures 3000] [--height 375] [--width 500] [--threads 2]

Writes JPEGs of its own in class folders, then, several rounds in one process and in turn: a tf.data
pipeline that reads and decodes each file and throws the pixels away, and the whole of `prepare`, from
looking at the folder to dataset.json. Prints pictures per second and processor time for each, and their
ratios. The files lie in the page cache: disks are not compared.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import statistics
import tempfile
from typing import Callable, Dict

import side_by_side
import tensorflow as tf

from densenet_keras.data.prepare import job
from densenet_keras.data.prepare.options import PrepareOptions


def write_pictures(folder: str, options: argparse.Namespace) -> float:
    """JPEGs with the size and the look of photographs, all different, in ten class folders."""
    variants = side_by_side.photographs(options.width, options.height)
    for number in range(options.pictures):
        place = os.path.join(folder, f"class{number % 10}")
        os.makedirs(place, exist_ok=True)
        encoded = variants[number % len(variants)]
        with open(os.path.join(place, f"{number:06d}.jpg"), "wb") as file:
            # A comment behind the first marker makes each file one of its own.
            file.write(encoded[:2] + b"\xff\xfe\x00\x0a" + b"%08d" % number + encoded[2:])
    return sum(map(len, variants)) / len(variants)


def bare(folder: str, options: argparse.Namespace) -> None:
    """Reads and decodes every file, nothing else."""
    paths = [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]
    with tf.Graph().as_default() as graph:

        def decoded(path: tf.Tensor) -> tf.Tensor:
            return tf.shape(tf.image.decode_jpeg(tf.io.read_file(path), channels=3))

        shapes = tf.data.Dataset.from_tensor_slices(paths).map(decoded, num_parallel_calls=options.threads)
        batch = tf.compat.v1.data.make_one_shot_iterator(shapes.batch(64).prefetch(1)).get_next()
        threads = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=options.threads, inter_op_parallelism_threads=options.threads
        )
        done = 0
        with tf.compat.v1.Session(graph=graph, config=threads) as session:
            while done < len(paths):
                done += len(session.run(batch))


def whole(folder: str, options: argparse.Namespace) -> side_by_side.Reading:
    """Everything that the command does, in a new folder."""
    data_dir = folder + "-data"
    shutil.rmtree(data_dir, ignore_errors=True)
    settings = PrepareOptions(pictures=folder, data_dir=data_dir, data_threads=options.threads)
    return side_by_side.reading(lambda: job.prepare(settings, lambda line: None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default, text in (
        ("pictures", 3000, "pictures to write"),
        ("height", 375, "pixels"),
        ("width", 500, "pixels"),
        ("rounds", 5, "rounds"),
        ("threads", os.cpu_count(), "parallel decoders"),
    ):
        parser.add_argument("--" + name, type=int, default=default, help=f"{text} (default: {default})")
    options = parser.parse_args()
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        folder = os.path.join(folder, "pictures")
        mean_bytes = write_pictures(folder, options)
        size = f"{options.width}x{options.height}, {mean_bytes / 1000:.0f} KB each"
        print(f"{options.pictures} JPEGs of {size}, {options.threads} threads", flush=True)
        sides: Dict[str, Callable[[], side_by_side.Reading]] = {
            "bare": lambda: side_by_side.reading(functools.partial(bare, folder, options)),
            "prepare": functools.partial(whole, folder, options),
        }
        found = side_by_side.in_turns(sides, options.rounds)
    for side, readings in found.items():
        wall, processor = (
            statistics.median(each[name] for each in readings) for name in ("seconds", "cpu_seconds")
        )
        each_ms = 1000 * processor / options.pictures
        print(f"{side}: {options.pictures / wall:.0f} pictures/s, {each_ms:.2f} ms of processor time each")
    what = f"prepare, {size}, {options.threads} threads"
    for name, how in (("cpu_seconds", ""), ("seconds", "wall-clock time")):
        ratios = side_by_side.ratios(found["prepare"], found["bare"], name)
        side_by_side.row(what, "reading and decoding the files", ratios, how)


if __name__ == "__main__":
    main()
