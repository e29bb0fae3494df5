"""What the loop of steps costs a host: all callbacks of a training run against a bare loop of session.run.

    python benchmarks/loop_cost.py --iterations_per_loop 1

Both sides train densenet_tiny, 32 px, batch 2, on pictures in memory, with one graph and session made in the
same way, each in a process of its own. One goes through the loop and the callbacks of a run (console,
metrics.jsonl, TensorBoard, progress, checkpoints at their usual distance), the other calls session.run for
every step and fetches the loss.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from typing import Any, Dict

import side_by_side

SIDES = {"ours": "our loop and callbacks", "bare": "a bare loop of session.run"}
BLOCK_STEPS = 600


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations_per_loop", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.iterations_per_loop)
        return
    found = side_by_side.processes_in_turns(__file__, sys.argv[1:], list(SIDES), options.rounds)
    for side, name in SIDES.items():
        step_ms = statistics.median(1000 * each["cpu_seconds"] / BLOCK_STEPS for each in found[side])
        print(f"{name}: {step_ms:.2f} ms of processor time a step", flush=True)
    what = f"a step of densenet_tiny with all callbacks, --iterations_per_loop {options.iterations_per_loop}"
    side_by_side.row(what, SIDES["bare"], side_by_side.ratios(found["ours"], found["bare"]))


class Turns:
    """Lets a block of steps go on for each line of standard input, and prints what it took."""

    def __init__(self) -> None:
        self._watch = side_by_side.Stopwatch()

    def begin(self) -> bool:
        """Waits for a line; whether there was one."""
        if not sys.stdin.readline():
            return False
        self._watch = side_by_side.Stopwatch()
        return True

    def end(self) -> None:
        print(json.dumps(self._watch.reading()), flush=True)


def work(side: str, iterations_per_loop: int) -> None:
    """A worker's part: one of the SIDES."""
    import tensorflow as tf

    import densenet_keras
    from densenet_keras.commands import train
    from densenet_keras.training import loop

    turns = Turns()

    class Blocks(tf.keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            turns.begin()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if logs.progress.step % BLOCK_STEPS == 0:
                turns.end()
                self.model.stop_training = not turns.begin()

    def bare(run: loop.Run, *_: Any, **__: Any) -> int:
        fetches = [run.step.train_op, run.step.metrics["loss"]]
        while turns.begin():
            for _step in range(BLOCK_STEPS):
                run.session.run(fetches)
            turns.end()
        return 0

    if side == "bare":
        loop.run = bare  # type: ignore[assignment]
    with tempfile.TemporaryDirectory(prefix="loop-cost-") as folder:
        settings: Dict[str, Any] = {
            "model": "densenet_tiny",
            "image_size": 32,
            "batch_size": 2,
            "num_classes": 10,
            "synthetic_data": True,
            "data_threads": 1,
            "intra_op_threads": 1,
            "mode": "train",
            "iterations_per_loop": iterations_per_loop,
            "max_train_steps": 1_000_000,
            "log_dir": folder,
        }
        given = [f"--{name}={str(value).lower()}" for name, value in settings.items() if name != "log_dir"]
        config = densenet_keras.parse("train", [*given, "--log_dir", folder])
        train.train(config, callbacks=[Blocks()])


if __name__ == "__main__":
    main()
