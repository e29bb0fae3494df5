"""Sizes, steps and the learning rate of a run as pure arithmetic.

A step is one update from one global batch. An epoch is `train_images // global_batch` steps, as in
the original; the data stream itself never drops the remainder: it passes over the data again and
again, and global batches follow one another across the ends of passes (see `data.data_order`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, Iterator, Mapping, NamedTuple, Sequence, Tuple

from densenet_keras.settings.config import Config

PLAN_FILE = "plan.json"  # the RunPlan of a run, in its folder


@dataclass(frozen=True)
class RunPlan:
    """Every size of a training run that follows from configuration and data."""

    train_images: int
    eval_images: int
    global_batch: int
    steps_per_epoch: int
    total_steps: int
    log_interval_steps: int  # 0: after every chunk
    save_interval_steps: int
    eval_interval_steps: int  # 0: never
    iterations_per_loop: int

    def epoch(self, step: int) -> float:
        """Epochs trained after `step` steps."""
        return step / self.steps_per_epoch

    def chunks(self, first_step: int) -> Iterator[Tuple[int, int]]:
        """See `chunks`: no interval needs to divide another."""
        intervals = (
            self.log_interval_steps,
            self.save_interval_steps,
            self.steps_per_epoch,
            self.eval_interval_steps,
        )
        given = [interval for interval in intervals if interval]
        # The pieces of the whole run, so that a run which was stopped inside one, and continues, ends its
        # pieces, and writes its lines, at the steps of one that was not.
        for start, end in chunks(0, self.total_steps, self.iterations_per_loop, given):
            if end > first_step:
                yield max(start, first_step), end

    def evaluates_at(self, step: int) -> bool:
        """Whether an evaluation is due after the chunk that ends at `step`."""
        interval = self.eval_interval_steps
        return interval > 0 and (step % interval == 0 or step == self.total_steps)

    def logs_at(self, step: int) -> bool:
        """Whether a log line is due after the chunk that ends at `step`."""
        return not self.log_interval_steps or step % self.log_interval_steps == 0 or step == self.total_steps


def plan(config: Config, train_images: int, eval_images: int) -> RunPlan:
    """The sizes of the run that `config` describes on that much data."""
    run = config.run
    global_batch = config.data.batch_size * config.device.rank_size
    steps_per_epoch = max(1, train_images // global_batch)
    total_steps = run.max_train_steps
    if run.max_epochs is not None:
        total_steps = run.max_epochs * steps_per_epoch
    evaluates = run.mode == "train_and_evaluate"
    return RunPlan(
        train_images=train_images,
        eval_images=eval_images,
        global_batch=global_batch,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        # A shorter interval than a loop cannot cut it: then every session.run has its line.
        log_interval_steps=run.display_every if run.display_every > run.iterations_per_loop else 0,
        save_interval_steps=run.save_checkpoints_steps,
        eval_interval_steps=run.epochs_between_evals * steps_per_epoch if evaluates else 0,
        iterations_per_loop=run.iterations_per_loop,
    )


def chunks(
    first_step: int, total_steps: int, longest: int, intervals: Sequence[int]
) -> Iterator[Tuple[int, int]]:
    """Cuts steps first_step..total_steps into (start, end) pieces.

    No piece is longer than `longest`, and a piece ends at every multiple of every interval.
    """
    start = first_step
    while start < total_steps:
        end = min(start + longest, total_steps)
        for interval in intervals:
            end = min(end, (start // interval + 1) * interval)
        yield start, end
        start = end


def learning_rate(
    step: int,
    *,
    base: float,
    T_max: int,
    steps_per_epoch: int,
    warmup_epochs: float = 0.0,
    per_step: bool = False,
) -> float:
    """Learning rate of the update that turns global step `step` into `step + 1`.

    Cosine annealing to zero over T_max epochs, constant within an epoch unless `per_step`; the
    formula, the flooring included, is the original's `warmup_cosine_annealing_lr`. Past T_max the
    rate stays at zero, where the original read beyond its table.
    """
    warmup_steps = int(warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    epoch = step / steps_per_epoch if per_step else step // steps_per_epoch
    return base * (1.0 + math.cos(math.pi * min(epoch, T_max) / T_max)) / 2.0


class Progress(NamedTuple):
    """Where training stands after a chunk."""

    step: int
    epoch: float
    steps: int  # in this chunk
    timed_steps: int  # of these, the steps not made by the first run of a graph, which compiles it
    timed_seconds: float  # that the timed steps took
    data_wait_seconds: float  # of those, waiting for data; NaN where the backend cannot tell


class StepLogs(Dict[str, float]):
    """The `logs` of Keras callbacks, with where training stands beside the scalars.

    A look-up of a missing name gives NaN, as a callback that writes a fixed set of columns
    (CSVLogger) needs in epochs without evaluation; `get` and `in` see it as missing.
    """

    def __init__(self, scalars: Mapping[str, float], progress: Progress, interrupted: bool = False) -> None:
        super().__init__(scalars)
        self.progress = progress
        self.interrupted = interrupted  # a signal ended the chunk or, in on_train_end, training early

    def scalars(self) -> Dict[str, float]:
        """All but `batch` and `size`, which Keras wants beside them."""
        return {name: value for name, value in self.items() if name not in ("batch", "size")}

    def __missing__(self, name: str) -> float:
        return math.nan
