"""Speed of our DenseNet-121 training step against tf.keras.applications trained with train_on_batch.

    python benchmarks/train_step.py --image_size 64 --batch_size 8

Each side runs in a process of its own, in blocks that alternate, so that both meet the same machine. A
block of one side waits while the other side's runs. The first block of each side, with graph construction
behind it and the first run in it, does not count. The result is the median over pairs of neighbouring
blocks; more than 1 means that ours is faster. `cpu` compares processor time, which other programs on the
machine disturb less.

Equal on both sides: image size, batch, classes, float32, threads, SGD with Nesterov momentum, one batch
that stays in memory. Not equal: ours takes uint8 images through tf.data and normalises them in the step,
smooths the labels and adds the L2 loss over all weights (--bare leaves both out); Keras is handed
normalised float32 images and its loss comes from a softmax inside the model.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterator, List

ROOT = pathlib.Path(__file__).resolve().parents[1]
SIDES = ("ours", "keras")
LEARNING_RATE = 0.1
MOMENTUM = 0.9


def main() -> None:
    options = _parse()
    if options.worker:
        _work(options)
        return
    blocks = _measure(options)
    ratios = [keras["seconds"] / ours["seconds"] for ours, keras in zip(blocks["ours"], blocks["keras"])]
    cpu_ratios = [
        keras["cpu_seconds"] / ours["cpu_seconds"] for ours, keras in zip(blocks["ours"], blocks["keras"])
    ]
    result: Dict[str, Any] = {
        name: getattr(options, name)
        for name in ("image_size", "batch_size", "num_classes", "threads", "blocks", "steps", "bare")
    }
    for side in SIDES:
        result[side] = {
            "seconds_per_step": statistics.median(b["seconds"] for b in blocks[side]) / options.steps,
            "cpu_seconds_per_step": statistics.median(b["cpu_seconds"] for b in blocks[side]) / options.steps,
            "peak_megabytes": max(b["peak_megabytes"] for b in blocks[side]),
        }
    result["ratio"] = statistics.median(ratios)
    result["cpu_ratio"] = statistics.median(cpu_ratios)
    print(json.dumps(result))
    print(
        f"ours {result['ratio']:.2f}x the speed of Keras (blocks {min(ratios):.2f} to {max(ratios):.2f}; "
        f"by processor time {result['cpu_ratio']:.2f}x)"
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--num_classes", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="intra-op threads")
    parser.add_argument("--blocks", type=int, default=7, help="counted blocks of each side")
    parser.add_argument("--steps", type=int, default=8, help="steps in a block")
    parser.add_argument("--bare", action="store_true", help="no label smoothing and no L2 loss in ours")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(options: argparse.Namespace) -> Dict[str, List[Dict[str, float]]]:
    """What each counted block of each side took."""
    workers = {side: _start(side) for side in SIDES}
    blocks: Dict[str, List[Dict[str, float]]] = {side: [] for side in SIDES}
    try:
        for number in range(options.blocks + 1):
            for side in SIDES:
                reading = _run_block(workers[side])
                if number:
                    blocks[side].append(reading)
    finally:
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
    return blocks


def _start(side: str) -> Any:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, *sys.argv[1:], "--worker", side],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        universal_newlines=True,
    )


def _run_block(worker: Any) -> Dict[str, float]:
    worker.stdin.write("run\n")
    worker.stdin.flush()
    for line in worker.stdout:
        if line.startswith("{"):
            reading: Dict[str, float] = json.loads(line)
            return reading
    raise SystemExit(f"a worker of the benchmark exited with {worker.wait()}; see its message above")


def _work(options: argparse.Namespace) -> None:
    """Runs a block for every line of standard input."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    side = {"ours": _ours, "keras": _keras}[options.worker]
    with side(options) as run_block:
        for _ in sys.stdin:
            before, cpu_before = time.monotonic(), time.process_time()
            run_block()
            reading = {
                "seconds": time.monotonic() - before,
                "cpu_seconds": time.process_time() - cpu_before,
                "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
            print(json.dumps(reading), flush=True)


@contextlib.contextmanager
def _ours(options: argparse.Namespace) -> Iterator[Callable[[], Any]]:
    import tensorflow as tf

    from densenet_keras.backends.tensorflow.backend import TensorFlowBackend
    from densenet_keras.data import synthetic
    from densenet_keras.network.densenet import build_densenet
    from densenet_keras.training import steps

    config = _config(options)
    backend = TensorFlowBackend(config, _topology())
    graph = tf.Graph()
    with graph.as_default(), backend.placement():
        tf.keras.backend.set_learning_phase(1)
        dataset = synthetic.synthetic_train_dataset(config, _topology())
        iterator = tf.compat.v1.data.make_initializable_iterator(dataset)
        _, step = steps.build_train_step(
            lambda images: build_densenet(config.model, images),
            backend.measure_get_next(iterator),
            config,
            lambda global_step: tf.constant(LEARNING_RATE),
            backend,
        )
        initialise = tf.compat.v1.global_variables_initializer()
    with backend.session(graph) as session:
        session.run(initialise)
        session.run(iterator.initializer)
        graph.finalize()
        yield lambda: backend.run_steps(session, step, options.steps)


def _config(options: argparse.Namespace) -> Any:
    from densenet_keras.settings.config import Config

    config = Config().replace(
        model="densenet121",
        synthetic_data=True,
        image_size=options.image_size,
        batch_size=options.batch_size,
        num_classes=options.num_classes,
        momentum=MOMENTUM,
        use_nesterov=True,
        intra_op_threads=options.threads,
        data_threads=1,
    )
    return config.replace(label_smoothing=0.0, weight_decay=0.0) if options.bare else config


def _topology() -> Any:
    from densenet_keras.topology import Topology

    return Topology()


@contextlib.contextmanager
def _keras(options: argparse.Namespace) -> Iterator[Callable[[], Any]]:
    import numpy as np
    import tensorflow as tf

    session_config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=options.threads, inter_op_parallelism_threads=3
    )
    tf.compat.v1.keras.backend.set_session(tf.compat.v1.Session(config=session_config))
    size = options.image_size
    model = tf.keras.applications.DenseNet121(
        weights=None, input_shape=(size, size, 3), classes=options.num_classes
    )
    optimizer = tf.keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM, nesterov=True)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    random = np.random.RandomState(0)
    images = random.randn(options.batch_size, size, size, 3).astype(np.float32)
    labels = random.randint(0, options.num_classes, options.batch_size)

    def run_block() -> None:
        for _ in range(options.steps):
            model.train_on_batch(images, labels)

    yield run_block


if __name__ == "__main__":
    main()
