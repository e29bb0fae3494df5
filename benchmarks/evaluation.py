"""Our evaluation of DenseNet-121 against tf.keras.applications.DenseNet121 and predict.

    python benchmarks/evaluation.py --image_size 224 --batch_size 32

Each side runs in a process of its own, in blocks that take turns: batches that stay in memory, float32, the
same threads. Ours takes uint8 images, normalises them and counts top-1 and top-5; Keras is handed normalised
float32 images and returns its probabilities.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import Any, Callable, Iterator

import numpy as np
import side_by_side

SIDES = {
    "ours": "ours",
    "plain": "our evaluation with --fast_cpu false",
    "keras": "tf.keras.applications with predict",
}
NUM_CLASSES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=2, help="in a block")
    parser.add_argument("--blocks", type=int, default=5, help="counted blocks of each side")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="intra-op threads")
    parser.add_argument("--sides", default="ours,plain,keras", help="the first over each other")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        with (keras if options.worker == "keras" else ours)(options) as run_block:
            side_by_side.serve(run_block)
        return
    first, *others = options.sides.split(",")
    found = side_by_side.processes_in_turns(__file__, sys.argv[1:], [first, *others], options.blocks)
    what = f"evaluation, DenseNet-121, {options.image_size} px, batch {options.batch_size}"
    for side in others:
        side_by_side.row(what, SIDES[side], side_by_side.ratios(found[first], found[side]))


@contextlib.contextmanager
def ours(options: argparse.Namespace) -> Iterator[Callable[[], Any]]:
    config, backend = side_by_side.cpu_backend(
        model="densenet121",
        image_size=options.image_size,
        num_classes=NUM_CLASSES,
        intra_op_threads=options.threads,
        fast_cpu=options.worker != "plain",
    )
    import tensorflow as tf

    from densenet_keras.network.densenet import build_densenet
    from densenet_keras.training import steps

    size, count = options.image_size, options.batch_size
    random = np.random.RandomState(0)
    pixels = random.randint(0, 256, (count, size, size, 3)).astype(np.uint8)
    classes = random.randint(0, NUM_CLASSES, count).astype(np.int32)
    graph = tf.Graph()
    with graph.as_default(), backend.placement():
        tf.keras.backend.set_learning_phase(0)
        images = tf.compat.v1.placeholder(tf.uint8, pixels.shape)
        labels = tf.compat.v1.placeholder(tf.int32, classes.shape)
        network_input = steps.network_input(images, config.model)
        model = build_densenet(config.model, network_input)
        logits = steps.inference_logits(model, network_input, backend)
        sums = steps.build_eval_step(logits, labels, tf.ones([count]), backend)
        initialise = tf.compat.v1.global_variables_initializer()
    with backend.session(graph) as session:
        session.run(initialise)
        graph.finalize()

        def run_block() -> None:
            for _ in range(options.batches):
                session.run(sums, {images: pixels, labels: classes})

        yield run_block


@contextlib.contextmanager
def keras(options: argparse.Namespace) -> Iterator[Callable[[], Any]]:
    size, count = options.image_size, options.batch_size * options.batches
    model = side_by_side.keras_densenet(size, NUM_CLASSES, options.threads)
    images = np.random.RandomState(0).randn(count, size, size, 3).astype(np.float32)
    yield lambda: model.predict(images, batch_size=options.batch_size)


if __name__ == "__main__":
    main()
