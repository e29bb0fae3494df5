"""Our input, for training and evaluation, against TensorFlow's own pipeline and against bare decoding.

    python benchmarks/input_pipeline.py [--images 600] [--height 375] [--width 500] [--batch_size 32]

Writes JPEG shards of its own, then runs the sides in turns, several rounds in one process. The shards lie in
the page cache: disks are not compared.

    training    random crops, flips and resizing as a rank gets them
    evaluation  the central crop, resized
    prepared    training on the same pictures with a shorter side of 256 pixels
    stock       what TensorFlow's ImageNet examples do: crops of sample_distorted_bounding_box, shards that
                are interleaved, a shuffle of 256 records; ours adds an order of the whole epoch, a start at
                any step, and the name of any bad record
    bare        decode_jpeg of whole pictures, and nothing else
"""

import argparse
import functools
import os
import statistics
import tempfile
from typing import Callable, Tuple

import side_by_side
import tensorflow as tf

from densenet_keras.data import batches as pipeline
from densenet_keras.data import records
from densenet_keras.data.shards import find_shards
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology

MakeDataset = Callable[[str, argparse.Namespace], tf.data.Dataset]
FIRST_BATCHES = 3  # that do not count
SHORT_SIDE = 256  # pixels


def write_shards(folder: str, width: int, height: int, options: argparse.Namespace) -> str:
    """Shards of photographs in `folder`, which is returned."""
    pictures = side_by_side.photographs(width, height)
    side_by_side.write_shards(folder, pictures, options.images, options.shards)
    return folder


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

    files = tf.data.Dataset.from_tensor_slices(find_shards(folder, "train"))
    return (
        files.interleave(tf.data.TFRecordDataset, cycle_length=min(10, options.shards))
        .repeat()
        .shuffle(256)
        .map(decode, num_parallel_calls=options.threads)
        .batch(options.batch_size, drop_remainder=True)
        .prefetch(2)
    )


def bare_dataset(folder: str, options: argparse.Namespace) -> tf.data.Dataset:
    def decode(serialized: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
        wanted = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
        encoded = tf.io.parse_single_example(serialized, wanted)["image/encoded"]
        return tf.image.decode_jpeg(encoded, channels=3)[:1, :1], tf.constant(0)

    return (
        tf.data.TFRecordDataset(find_shards(folder, "train"))
        .repeat()
        .map(decode, num_parallel_calls=options.threads)
        .batch(options.batch_size, drop_remainder=True)
        .prefetch(2)
    )


def training_dataset(folder: str, options: argparse.Namespace) -> tf.data.Dataset:
    split = records.open_split(folder, "train")
    return pipeline.train_dataset(split, _config(options), Topology(), tf.constant(0, tf.int64))


def evaluation_dataset(folder: str, options: argparse.Namespace) -> tf.data.Dataset:
    split = records.open_split(folder, "validation")
    dataset = pipeline.eval_dataset(split, _config(options), Topology())
    return dataset.map(lambda images, labels, weights: (images, labels)).repeat().prefetch(2)


def _config(options: argparse.Namespace) -> Config:
    return Config().replace(
        batch_size=options.batch_size,
        image_size=options.image_size,
        num_classes=1000,
        data_threads=options.threads,
    )


def once(make: MakeDataset, folder: str, options: argparse.Namespace) -> side_by_side.Reading:
    """What a round of batches takes; a pipeline lives only meanwhile: its read-ahead costs others nothing."""
    with tf.Graph().as_default() as graph:
        iterator = tf.compat.v1.data.make_initializable_iterator(make(folder, options))
        images, labels = iterator.get_next()
        fetch = [tf.reduce_max(images[:, 0, 0, 0]), labels]  # no batch is copied to Python
    threads = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=options.threads, inter_op_parallelism_threads=options.threads
    )
    with tf.compat.v1.Session(graph=graph, config=threads) as session:
        session.run(iterator.initializer)

        def run(batches: int) -> None:
            for _ in range(batches):
                session.run(fetch)

        run(FIRST_BATCHES)
        return side_by_side.reading(functools.partial(run, options.batches))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default, text in (
        ("images", 600, "images to write"),
        ("shards", 8, "files to write them to"),
        ("height", 375, "pixels"),
        ("width", 500, "pixels"),
        ("image_size", 224, "pixels"),
        ("batch_size", 32, "images of a batch"),
        ("batches", 15, "batches of a round"),
        ("rounds", 5, "rounds"),
        ("threads", os.cpu_count(), "cores, and parallel decoders"),
    ):
        parser.add_argument("--" + name, type=int, default=default, help=f"{text} (default: {default})")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        large = write_shards(os.path.join(folder, "large"), options.width, options.height, options)
        scale = SHORT_SIDE / min(options.width, options.height)
        smaller = (round(scale * options.width), round(scale * options.height))
        small = write_shards(os.path.join(folder, "small"), *smaller, options)
        sides = {
            "training": functools.partial(once, training_dataset, large, options),
            "evaluation": functools.partial(once, evaluation_dataset, large, options),
            "prepared": functools.partial(once, training_dataset, small, options),
            "stock": functools.partial(once, stock_dataset, large, options),
            "bare": functools.partial(once, bare_dataset, large, options),
        }
        found = side_by_side.in_turns(sides, options.rounds)
    images = options.batch_size * options.batches
    for side, readings in found.items():
        speed = images / statistics.median(each["seconds"] for each in readings)
        milliseconds = 1000 * statistics.median(each["cpu_seconds"] for each in readings) / images
        print(f"{side}: {speed:.0f} images/s, {milliseconds:.2f} ms of processor time an image", flush=True)
    cores = "one core" if options.threads == 1 else f"{options.threads} cores"
    what = f"input of {options.width}x{options.height} on {cores}"
    for side, peer, name in (
        ("training", "stock", "TensorFlow's own pipeline"),
        ("training", "bare", "bare decode_jpeg"),
        ("evaluation", "bare", "bare decode_jpeg"),
        ("prepared", "training", f"the pictures before prepare --short_side {SHORT_SIDE}"),
    ):
        side_by_side.row(f"{side} {what}", name, side_by_side.ratios(found[side], found[peer]))
        wall = side_by_side.ratios(found[side], found[peer], "seconds")
        side_by_side.row(f"{side} {what}", name, wall, "wall-clock time")


if __name__ == "__main__":
    main()
