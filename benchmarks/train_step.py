"""Our DenseNet-121 training step against tf.keras.applications, and against our own other forms.

    python benchmarks/train_step.py --image_size 64 --batch_size 8 --sides ours,keras

Each side runs in a process of its own, in blocks that take turns, so that all meet the same machine. The
first block of each side, with the first run in it, does not count. Printed is the first side's processor
time over that of each other, the median over rounds, and the peak of memory above the start of the first
step; wall-clock times mean nothing on a machine that others use too.

    ours       what a rank runs on a CPU
    plain      --fast_cpu false
    gradients  fast gradients of convolutions alone, blocks and transitions in their plain form
    recompute  --recompute
    keras      tf.keras.applications.DenseNet121 and train_on_batch
    product    TensorFlow's product of two matrices: printed is the share of its rate that the first side has

Equal on all sides: image size, batch, classes, float32, threads, SGD with Nesterov momentum, one batch that
stays in memory. Not equal: ours takes uint8 images through tf.data and normalises them in the step, smooths
the labels and adds the L2 loss over all weights (--bare leaves both out); Keras is handed normalised float32
images and its loss comes from a softmax inside the model.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
from typing import Any, Callable, Dict, Iterator, List

import side_by_side

SIDES = ("ours", "plain", "gradients", "recompute", "keras", "product")
NAMES = {
    "ours": "ours",
    "plain": "our step with --fast_cpu false",
    "gradients": "our step with fast gradients of convolutions alone",
    "recompute": "our step with --recompute",
    "keras": "tf.keras.applications with train_on_batch",
}
MOMENTUM = 0.9
# Of a training step at 224 px: 2.83 billion multiplications in convolutions and classifier, an addition with
# each, and the same again for either gradient.
OPERATIONS_AN_IMAGE = 17.0e9
MATRIX = 2048  # rows and columns
PRODUCTS = 12  # in a block


def main() -> None:
    options = _parse()
    if options.worker:
        with {"keras": _keras, "product": _product}.get(options.worker, _ours)(options) as run_block:
            side_by_side.serve(run_block)
        return
    sides = options.sides.split(",")
    found = side_by_side.processes_in_turns(__file__, sys.argv[1:], sides, options.blocks)
    what = f"training step, DenseNet-121, {options.image_size} px, batch {options.batch_size}"
    first, *others = sides
    what = what if first == "ours" else f"{what}, {first}"
    for side in sides:
        seconds = statistics.median(each["cpu_seconds"] for each in found[side]) / options.steps
        faults = statistics.median(each["page_faults"] for each in found[side]) / options.steps
        print(f"{side}: {seconds:.2f} s of processor time, {faults:.0f} faults, {_above(found[side]):.0f} MB")
    for side in others:
        if side == "product":
            share = [_share(options, *readings) for readings in zip(found[first], found[side])]
            side_by_side.row(
                what, "the rate of TensorFlow's matrix product", share, "operations a second, a share"
            )
            continue
        side_by_side.row(what, NAMES[side], side_by_side.ratios(found[first], found[side]))
        memory = [_above(found[first]) / _above(found[side])]
        side_by_side.row(what, NAMES[side], memory, "peak memory above the start of the first step")


def _share(options: argparse.Namespace, step: side_by_side.Reading, product: side_by_side.Reading) -> float:
    """The operations in a processor second of a step over those of the matrix product."""
    images = options.batch_size * options.steps
    operations = OPERATIONS_AN_IMAGE * (options.image_size / 224) ** 2 * images
    limit = 2 * MATRIX**3 * PRODUCTS
    return operations / step["cpu_seconds"] / (limit / product["cpu_seconds"])


def _above(readings: List[side_by_side.Reading]) -> float:
    """Megabytes at the peak, above those at the start of the first step."""
    return max(each["peak_megabytes"] - each["start_megabytes"] for each in readings)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--num_classes", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="intra-op threads")
    parser.add_argument("--blocks", type=int, default=5, help="counted blocks of each side")
    parser.add_argument("--steps", type=int, default=4, help="steps in a block")
    parser.add_argument("--bare", action="store_true", help="no label smoothing and no L2 loss in ours")
    parser.add_argument(
        "--sides", default="ours,keras", help=f"of {', '.join(SIDES)}; the first over each other"
    )
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


@contextlib.contextmanager
def _ours(options: argparse.Namespace) -> Iterator[Callable[[], Any]]:
    settings: Dict[str, Any] = {
        "model": "densenet121",
        "image_size": options.image_size,
        "batch_size": options.batch_size,
        "num_classes": options.num_classes,
        "momentum": MOMENTUM,
        "use_nesterov": True,
        "intra_op_threads": options.threads,
        "fast_cpu": options.worker != "plain",
        "recompute": options.worker == "recompute",
    }
    if options.bare:
        settings.update(label_smoothing=0.0, weight_decay=0.0)
    rearranged = options.worker != "gradients"
    with side_by_side.training(options.steps, rearranged=rearranged, **settings) as run_block:
        yield run_block


@contextlib.contextmanager
def _keras(options: argparse.Namespace) -> Iterator[Callable[[], Any]]:
    import numpy as np
    import tensorflow as tf

    size = options.image_size
    model = side_by_side.keras_densenet(size, options.num_classes, options.threads)
    optimizer = tf.keras.optimizers.SGD(side_by_side.LEARNING_RATE, momentum=MOMENTUM, nesterov=True)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    random = np.random.RandomState(0)
    images = random.randn(options.batch_size, size, size, 3).astype(np.float32)
    labels = random.randint(0, options.num_classes, options.batch_size)

    def run_block() -> None:
        for _ in range(options.steps):
            model.train_on_batch(images, labels)

    yield run_block


@contextlib.contextmanager
def _product(options: argparse.Namespace) -> Iterator[Callable[[], Any]]:
    import numpy as np
    import tensorflow as tf

    threads = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=options.threads, inter_op_parallelism_threads=1
    )
    with tf.Graph().as_default(), tf.compat.v1.Session(config=threads) as session:
        matrix = tf.compat.v1.placeholder(tf.float32, [MATRIX, MATRIX])
        product = tf.matmul(matrix, matrix).op
        value = np.random.RandomState(0).randn(MATRIX, MATRIX).astype(np.float32)

        def run_block() -> None:
            for _ in range(PRODUCTS):
                session.run(product, {matrix: value})

        yield run_block


if __name__ == "__main__":
    main()
