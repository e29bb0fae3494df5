"""Processor time of a training step with frozen parts against one that trains everything.

    python benchmarks/freezing.py --image_size 64 --batch_size 8

All networks are in one process; blocks of steps of each take turns, so that all meet the same machine. The
first block of each, with the first run in it, does not count. Printed is, for each --freeze, the median
over rounds of its processor time over that of no freezing, and the smallest and largest of them.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import statistics
import sys
import time
from typing import Any, Callable, Dict, Iterator, List

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

NOTHING = "none"
PARTS = (NOTHING, "block2", "all")
LEARNING_RATE = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="densenet121")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1, help="intra-op threads")
    parser.add_argument("--rounds", type=int, default=5, help="counted blocks of each")
    parser.add_argument("--steps", type=int, default=6, help="steps in a block")
    options = parser.parse_args()
    for part, ratios in _measure(options).items():
        print(
            f"--freeze {part}: {statistics.median(ratios):.2f} of the processor time of a step "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


def _measure(options: argparse.Namespace) -> Dict[str, List[float]]:
    """Processor time over that of no freezing, for each part and round."""
    ratios: Dict[str, List[float]] = {part: [] for part in PARTS if part != NOTHING}
    with contextlib.ExitStack() as stack:
        blocks = {part: stack.enter_context(_training(options, part)) for part in PARTS}
        for number in range(options.rounds + 1):
            seconds = {}
            for part, run_block in blocks.items():
                before = time.process_time()
                run_block()
                seconds[part] = time.process_time() - before
            if number:
                for part, found in ratios.items():
                    found.append(seconds[part] / seconds[NOTHING])
    return ratios


@contextlib.contextmanager
def _training(options: argparse.Namespace, part: str) -> Iterator[Callable[[], Any]]:
    """A function that runs a block of steps of a network with `part` frozen."""
    import tensorflow as tf

    from densenet_keras.backends.tensorflow.backend import TensorFlowBackend
    from densenet_keras.data import synthetic
    from densenet_keras.network.densenet import build_densenet
    from densenet_keras.network.variants import VARIANTS
    from densenet_keras.settings.config import Config
    from densenet_keras.topology import Topology
    from densenet_keras.training import steps

    config = Config().replace(
        model=options.model,
        synthetic_data=True,
        image_size=options.image_size,
        batch_size=options.batch_size,
        num_classes=10,
        intra_op_threads=options.threads,
        data_threads=1,
        freeze=part,
    )
    backend = TensorFlowBackend(config, Topology())
    frozen = VARIANTS[options.model].frozen_parts(part)
    graph = tf.Graph()
    with graph.as_default(), backend.placement():
        tf.keras.backend.set_learning_phase(1)
        dataset = synthetic.synthetic_train_dataset(config, Topology())
        iterator = tf.compat.v1.data.make_initializable_iterator(dataset)
        _, step = steps.build_train_step(
            lambda images: build_densenet(config.model, images, frozen=frozen),
            backend.measure_get_next(iterator),
            config,
            lambda global_step: tf.constant(LEARNING_RATE),
            backend,
        )
        initialise = tf.compat.v1.global_variables_initializer()
    with backend.session(graph) as session:
        session.run([initialise, iterator.initializer])
        graph.finalize()
        yield lambda: backend.run_steps(session, step, options.steps)


if __name__ == "__main__":
    main()
