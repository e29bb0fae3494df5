"""Sizes, steps and the learning rate of a run as pure arithmetic.

A step is one update from one global batch. An epoch is `train_images // global_batch` steps, as in
the original; the data stream itself never drops the remainder: it passes over the data again and
again, and global batches follow one another across the ends of passes (see `data.data_order`).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Dict, Iterator, Mapping, NamedTuple, Sequence, Tuple

from densenet_keras.settings.config import Config

PLAN_FILE = "plan.json"  # the RunPlan of a run, in its folder

# A stop and a log line wait for the end of a loop, so one that is chosen is bounded: in steps, in images of
# one rank (DenseNet-121 on a 910 takes about a minute for these, by the 4216 images a second on eight that
# Ascend/ModelZoo-TensorFlow's log has), and to a tenth of the run.
LONGEST_LOOP = 1000
LONGEST_LOOP_IMAGES = 40_000
FEWEST_LOOPS = 10
WORTHWHILE_LOOP = 10  # steps, beside which one session.run of the host is little


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
    save_interval = run.save_checkpoints_steps or steps_per_epoch
    eval_interval = run.epochs_between_evals * steps_per_epoch if run.mode == "train_and_evaluate" else 0
    longest = min(LONGEST_LOOP, LONGEST_LOOP_IMAGES // config.data.batch_size, total_steps // FEWEST_LOOPS)
    loop = run.iterations_per_loop or _loop_length(
        total_steps, max(WORTHWHILE_LOOP, longest), [save_interval, steps_per_epoch], run.display_every
    )
    return RunPlan(
        train_images=train_images,
        eval_images=eval_images,
        global_batch=global_batch,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        # A shorter interval than a loop cannot cut it: then every session.run has its line.
        log_interval_steps=run.display_every if run.display_every > loop else 0,
        save_interval_steps=save_interval,
        eval_interval_steps=eval_interval,
        iterations_per_loop=loop,
    )


def _loop_length(total_steps: int, longest: int, intervals: Sequence[int], display_every: int) -> int:
    """The loop that is best for a run with these intervals, of which log lines are one if they can be."""

    def best(ends: Sequence[int]) -> int:
        stretches = Counter(end - start for start, end in chunks(0, total_steps, total_steps, ends))
        return fit_loop(stretches, longest).length

    length = best(intervals)
    return best([*intervals, display_every]) if display_every > length else length


@dataclass(frozen=True)
class LoopPlan:
    """Session runs of a whole training run.

    A stretch of n steps is n // length loops followed by n % length single steps. The single steps run
    the step's own operation, another graph without the loop: the loop's count is never changed.
    """

    length: int  # iterations in one loop; 1: no loop, every run is one step
    loops: int
    single_steps: int  # 0: the second graph is never compiled

    @property
    def session_runs(self) -> int:
        """How often the host is involved."""
        return self.loops + self.single_steps


def fit_loop(stretches: Mapping[int, int], longest: int) -> LoopPlan:
    """The loop of at most `longest` steps for stretches of so many steps, each so many times.

    A length that divides every stretch needs no second graph, hence half the compilation; the longest
    such one is taken, unless it is short and needs more than twice the session runs of the best length.
    """
    candidates = [_loops(stretches, length) for length in range(1, max(1, longest) + 1)]
    best = min(candidates, key=lambda candidate: (candidate.session_runs, -candidate.length))
    dividing = max(
        (candidate for candidate in candidates if not candidate.single_steps),
        key=lambda candidate: candidate.length,
    )
    is_worthwhile = dividing.length >= WORTHWHILE_LOOP or dividing.session_runs <= 2 * best.session_runs
    return dividing if is_worthwhile else best


def _loops(stretches: Mapping[int, int], length: int) -> LoopPlan:
    loops = sum(number * (steps // length) for steps, number in stretches.items())
    if length == 1:
        return LoopPlan(1, loops, 0)
    return LoopPlan(length, loops, sum(number * (steps % length) for steps, number in stretches.items()))


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
