"""Memory, open files and threads of a run that trains, evaluates and saves: none of them grows.

    python -m tests.endurance.memory --steps 20000 --json memory.json

One process trains densenet_tiny on records of noise, saves every 20 steps and evaluates every 40. What it
holds is read from /proc up to a hundred times; the last fifth of these is compared with the second, when all
buffers are filled and all graphs are built.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from typing import Dict, List, Tuple

import tensorflow as tf

import densenet_keras
from tests.endurance import trials
from tests.support import records

SAMPLES = 100
SAVE_EVERY_STEPS, EVALUATE_EVERY_STEPS, BATCH = 20, 40, 2

# An allocator keeps a buffer of 8 MB at one sample and not at the next; 16 MB in 20,000 steps are 840 a step.
# Short runs are still filling their buffers, and need more.
ALLOWED_MEGABYTES = 16
ALLOWED_THREADS = 3  # a pool of TensorFlow's starts its last ones when it first needs them


class Held(tf.keras.callbacks.Callback):
    """Notes what this process holds, `SAMPLES` times in a run of `steps` steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._every = max(1, steps // SAMPLES)
        self.samples: List[Tuple[int, int, int]] = []  # resident bytes, open files, threads

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if logs.progress.step % self._every == 0:  # type: ignore[attr-defined]
            self.samples.append(held())


def held() -> Tuple[int, int, int]:
    """Resident bytes, open files and threads of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    files, threads = (len(os.listdir(f"/proc/self/{folder}")) for folder in ("fd", "task"))
    return pages * os.sysconf("SC_PAGE_SIZE"), files, threads


def run(steps: int, facts: Dict[str, object], allowed_megabytes: int) -> None:
    """One run; raises Failed where something has grown."""
    folder = tempfile.mkdtemp(prefix="densenet-memory-")
    try:
        images = BATCH * EVALUATE_EVERY_STEPS  # an epoch is one evaluation
        data = records.write_noise(os.path.join(folder, "data"), train=images, validation=8)
        flags = (
            f"--model densenet_tiny --num_classes 10 --image_size 32 --batch_size {BATCH} --data_dir {data} "
            f"--log_dir {folder}/run --max_train_steps {steps} --epochs_between_evals 1 --lr 0.001 "
            f"--save_checkpoints_steps {SAVE_EVERY_STEPS} --keep_checkpoint_max 2 --display_every 10 "
            "--iterations_per_loop 5"
        )
        watched = Held(steps)
        densenet_keras.train(densenet_keras.parse("train", flags.split()), [watched])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    facts["megabytes"] = [round(sample[0] / 1e6, 1) for sample in watched.samples]
    judge(watched.samples, steps, facts, allowed_megabytes)


def judge(
    samples: List[Tuple[int, int, int]],
    steps: int,
    facts: Dict[str, object],
    allowed_megabytes: int = ALLOWED_MEGABYTES,
) -> None:
    """Compares the last fifth of the samples with the second."""
    fifth = len(samples) // 5
    early, late = samples[fifth : 2 * fifth], samples[-fifth:]
    for place, (name, allowed) in enumerate(
        [("bytes", allowed_megabytes << 20), ("files", 0), ("threads", ALLOWED_THREADS)]
    ):
        before, after = (statistics.median(each[place] for each in part) for part in (early, late))
        facts[name] = {"early": before, "late": after}
        if after - before > allowed:
            raise trials.Failed(f"{name} grew from {before:.0f} to {after:.0f} in {steps} steps")


def main() -> int:
    parser = trials.arguments(__doc__ or "", ["run"], default_trials=1)
    parser.add_argument("--steps", type=int, default=20_000, help="of each run (default %(default)s)")
    parser.add_argument(
        "--allowed_megabytes", type=int, default=ALLOWED_MEGABYTES, help="of growth (default %(default)s)"
    )
    options = parser.parse_args()
    facts: Dict[str, object] = {"steps": options.steps}
    attempt = lambda trial: run(options.steps, facts, options.allowed_megabytes)  # noqa: E731
    return trials.carry_out("memory", options, ["run"], attempt, facts)


if __name__ == "__main__":
    sys.exit(main())
