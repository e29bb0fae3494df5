"""Input pipeline against the stock TFRecordDataset pipeline with the same decoding.

    python benchmarks/input_pipeline.py [--images 600] [--height 375] [--width 500] [--batch_size 32]

Writes JPEG shards of its own, then runs both pipelines in turn, several rounds in one process, and
prints images per second and processor time for each, and the median ratios. The shards lie in the
page cache: disks are not compared.

The stock pipeline draws its crops with sample_distorted_bounding_box, interleaves its shards and
shuffles 256 records; ours adds a permutation of the whole epoch, a start at any step, and the name of
any bad record.
"""

import argparse
import os
import statistics
import tempfile
import time
from typing import Callable, Dict, Tuple

import side_by_side
import tensorflow as tf

from densenet_keras.data import batches as pipeline
from densenet_keras.data import (
    records,
    tfrecord,
)
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology

MakeDataset = Callable[[str, argparse.Namespace], tf.data.Dataset]


def write_shards(folder: str, options: argparse.Namespace) -> float:
    """JPEGs with the size and the look of photographs: smooth shapes under some noise."""
    variants = side_by_side.photographs(options.width, options.height)
    for shard in range(options.shards):
        path = os.path.join(folder, f"train-{shard:05d}-of-{options.shards:05d}")
        with open(path, "wb") as file:
            for number in range(shard, options.images, options.shards):
                features: Dict[str, tfrecord.Feature] = {
                    "image/encoded": variants[number % len(variants)],
                    "image/class/label": 1 + number % 1000,
                }
                file.write(tfrecord.frame(tfrecord.encode_example(features)))
    return sum(map(len, variants)) / len(variants)


def stock_dataset(folder: str, options: argparse.Namespace) -> tf.data.Dataset:
    """What TensorFlow's own ImageNet examples do, with uint8 output like ours."""

    def decode(serialized: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_single_example(
            serialized,
            {
                "image/encoded": tf.io.FixedLenFeature([], tf.string),
                "image/class/label": tf.io.FixedLenFeature([], tf.int64),
            },
        )
        encoded = parsed["image/encoded"]
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(encoded),
            tf.zeros([1, 0, 4]),
            min_object_covered=0.0,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], 0)
        image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
        image = tf.image.random_flip_left_right(image)
        side = options.image_size
        image = tf.compat.v1.image.resize_bilinear(image[tf.newaxis], [side, side])[0]
        return tf.cast(image + 0.5, tf.uint8), tf.cast(parsed["image/class/label"], tf.int32)

    files = tf.data.Dataset.from_tensor_slices(records.find_shards(folder, "train"))
    return (
        files.interleave(tf.data.TFRecordDataset, cycle_length=min(10, options.shards))
        .repeat()
        .shuffle(256)
        .map(decode, num_parallel_calls=options.threads)
        .batch(options.batch_size, drop_remainder=True)
        .prefetch(2)
    )


def our_dataset(folder: str, options: argparse.Namespace) -> tf.data.Dataset:
    config = Config().replace(
        batch_size=options.batch_size,
        image_size=options.image_size,
        num_classes=1000,
        data_threads=options.threads,
    )
    split = records.open_split(folder, "train")
    return pipeline.train_dataset(split, config, Topology(), tf.constant(0, tf.int64))


class Runner:
    """One pipeline with its session; `measure` times some batches of it."""

    def __init__(self, make: MakeDataset, folder: str, options: argparse.Namespace) -> None:
        self.images = options.batch_size * options.batches
        self.batches = options.batches
        with tf.Graph().as_default() as graph:
            iterator = tf.compat.v1.data.make_initializable_iterator(make(folder, options))
            images, labels = iterator.get_next()
            self.fetch = [tf.reduce_max(images[:, 0, 0, 0]), labels]  # no batch is copied to Python
        threads = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=options.threads, inter_op_parallelism_threads=options.threads
        )
        self.session = tf.compat.v1.Session(graph=graph, config=threads)
        self.session.run(iterator.initializer)
        for _ in range(3):
            self.session.run(self.fetch)

    def measure(self) -> Tuple[float, float]:
        """(images per second, milliseconds of processor time per image)."""
        wall, processor = time.monotonic(), time.process_time()
        for _ in range(self.batches):
            self.session.run(self.fetch)
        wall, processor = time.monotonic() - wall, time.process_time() - processor
        return self.images / wall, 1000 * processor / self.images


def once(make: MakeDataset, folder: str, options: argparse.Namespace) -> Tuple[float, float]:
    """A pipeline lives only while it is measured, so that the other's read-ahead costs it nothing."""
    runner = Runner(make, folder, options)
    try:
        return runner.measure()
    finally:
        runner.session.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default, text in (
        ("images", 600, "images to write"),
        ("shards", 8, "files to write them to"),
        ("height", 375, "pixels"),
        ("width", 500, "pixels"),
        ("image_size", 224, "pixels"),
        ("batch_size", 32, "images of a batch"),
        ("batches", 15, "batches of a round"),
        ("rounds", 5, "rounds"),
        ("threads", os.cpu_count(), "parallel decoders"),
    ):
        parser.add_argument("--" + name, type=int, default=default, help=f"{text} (default: {default})")
    options = parser.parse_args()
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        mean_bytes = write_shards(folder, options)
        print(f"{options.images} JPEGs of {options.width}x{options.height}, {mean_bytes / 1000:.0f} KB each")
        print("round   stock images/s  ms CPU   ours images/s  ms CPU   speed ratio  CPU ratio")
        ratios = []
        for number in range(options.rounds):
            stock, ours = once(stock_dataset, folder, options), once(our_dataset, folder, options)
            ratios.append((ours[0] / stock[0], ours[1] / stock[1]))
            print(
                f"{number:5}   {stock[0]:14.0f}  {stock[1]:6.2f}   {ours[0]:13.0f}  {ours[1]:6.2f}   "
                f"{ratios[-1][0]:11.2f}  {ratios[-1][1]:9.2f}",
                flush=True,
            )
        speed, processor = (statistics.median(values) for values in zip(*ratios))
        print(f"median  ours / stock: speed {speed:.2f}, processor time {processor:.2f}")
        what = f"training input, {options.width}x{options.height}, {options.threads} threads"
        side_by_side.row(what, "TensorFlow's own pipeline", [each[1] for each in ratios])


if __name__ == "__main__":
    main()
