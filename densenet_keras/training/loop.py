"""Runs a training plan chunk by chunk and calls Keras callbacks in between."""

from __future__ import annotations

import contextlib
import functools
import math
import signal
import time
from typing import Any, Callable, ContextManager, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set

import tensorflow as tf

from densenet_keras.backends.base import Backend, Step
from densenet_keras.errors import RunError
from densenet_keras.rank import Rank
from densenet_keras.schedule import Progress, RunPlan, StepLogs
from densenet_keras.stop import StopFlag
from densenet_keras.training.divergence import Diverged
from densenet_keras.training.hooks import Hooks
from densenet_keras.training.recovery import Recovery
from densenet_keras.watchdog import Watchdog

# What a rank asks of the others after a chunk. Requests are summed over ranks, so each takes its own
# digits of the int32 sum, enough for 32,767 ranks.
STOP_TRAINING = 1
INTERRUPT = 1 << 16

# Means over the epoch in on_epoch_end, as Keras's fit gives them; other scalars are as of its last step.
MEAN_OVER_EPOCH = ("loss", "total_loss")


class Run(NamedTuple):
    """What the loop trains, and from where.

    Attributes:
        session: open, with the variables' values in place and the graph final.
        first_step: the global step that training starts at.
        recovery: what to do when a step has gone wrong; without, nothing is looked for.
    """

    session: tf.compat.v1.Session
    backend: Backend
    model: tf.keras.Model
    step: Step
    plan: RunPlan
    first_step: int
    recovery: Optional[Recovery] = None


def run(
    work: Run,
    callbacks: Sequence[tf.keras.callbacks.Callback],
    rank: Rank,
    agree: Callable[[int], int],
    first_step_timeout_seconds: float,
) -> int:
    """Trains from `work.first_step` to the end of the plan, or until a rank asks to stop.

    Hooks are called as Keras's fit calls them, a chunk being one batch: its index is that of the
    chunk's last step within the epoch, its logs hold that step's scalars, `batch` and `size` (images
    of the chunk, over all ranks). Every epoch begun is ended, a partial one too, unless a signal
    interrupts: then the same epoch is to be continued by another run. on_train_end comes last in
    either case, with `logs.interrupted` to tell them apart. After an exception it does not come, as
    in Keras, because part of what it does needs every rank.

    When a step has gone wrong and `work.recovery` goes back, training goes on from an earlier step: its epoch
    begins again, and a callback with a method `on_rewind(step, words)` has it called before.

    A callback with a method `close()` has it called at the very end, in reverse order, whatever
    happened before. One with a method `compiling(what)` has its context entered while a device compiles a
    graph of steps.

    Args:
        agree: sums one integer over all ranks; called by all of them after each chunk.

    Returns:
        The global step reached, the same on all ranks.
    """
    hooks = Hooks(list(callbacks))
    try:
        hooks.set_params(_parameters(work.plan, work.step))
        hooks.set_model(work.model)
        work.model.stop_training = False
        chunks = _Chunks(work, rank, first_step_timeout_seconds)
        announce = [callback.compiling for callback in callbacks if hasattr(callback, "compiling")]
        work.backend.compiling = functools.partial(chunks.compiling, announce)
        with rank.watchdog.unlimited():
            hooks.on_train_begin()
        if work.recovery is not None:
            work.recovery.begin()
        while True:
            try:
                return _train(work, hooks, chunks, rank, agree)
            except Diverged as problem:
                work = _gone_back(work, problem, callbacks)
    except RuntimeError as error:
        if "Graph is finalized" not in str(error):
            raise
        raise RunError(
            "a callback adds to the graph in the course of training, which the device could not run: what it "
            "needs of the graph must exist before; use NumPy on model.get_weights() instead of tensors"
        ) from error
    finally:
        _close(callbacks)


def _gone_back(work: Run, problem: Diverged, callbacks: Sequence[tf.keras.callbacks.Callback]) -> Run:
    """What is left to train after `problem`."""
    assert work.recovery is not None, "it raised it"
    step, words = work.recovery.recover(problem)
    for callback in callbacks:
        on_rewind = getattr(callback, "on_rewind", None)
        if callable(on_rewind):
            on_rewind(step, words)
    return work._replace(first_step=step)


def _train(work: Run, hooks: Hooks, chunks: _Chunks, rank: Rank, agree: Callable[[int], int]) -> int:
    plan, model, stop = work.plan, work.model, rank.stop
    in_callbacks = rank.watchdog.unlimited  # what users write may take its time
    epoch = _Epoch(hooks, plan)
    done = work.first_step
    logs = StepLogs({}, Progress(done, plan.epoch(done), 0, 0, 0.0, math.nan))
    for start, end in plan.chunks(work.first_step):
        with in_callbacks():
            epoch.begin(start)
            hooks.on_train_batch_begin(**_batch(plan, start, end))
        if work.recovery is not None:
            work.recovery.before(start)
        logs = chunks.run(start, end)
        stop.let_finish()  # before ranks meet below: once one has gone on, all have something to save
        end = logs.progress.step
        if work.recovery is not None:
            work.recovery.check(end, logs)
        begun = _batch(plan, start, end)
        batch = begun["batch"]
        logs.update(begun["logs"])
        epoch.add(logs)
        done = end
        with in_callbacks():
            hooks.on_train_batch_end(batch, logs)
            if end % plan.steps_per_epoch == 0 or end == plan.total_steps:
                epoch.end(logs.progress)
        with rank.watchdog.waiting():
            requests = agree(STOP_TRAINING * bool(model.stop_training) + INTERRUPT * bool(stop.signal))
        if requests:
            # All ranks must leave the same way, whichever of them asked.
            model.stop_training = requests % INTERRUPT > 0
            logs.interrupted = requests >= INTERRUPT and end < plan.total_steps
            if requests >= INTERRUPT and not stop.signal:
                stop.request(signal.SIGTERM)
            break
    with in_callbacks():
        if not logs.interrupted:
            epoch.end(logs.progress)
        hooks.on_train_end(StepLogs({}, logs.progress, logs.interrupted))
    return done


def _batch(plan: RunPlan, start: int, end: int) -> Dict[str, Any]:
    """What on_train_batch_begin is called with for a chunk."""
    batch = (end - 1) % plan.steps_per_epoch
    return {"batch": batch, "logs": {"batch": batch, "size": (end - start) * plan.global_batch}}


class _Chunks:
    """Runs chunks against the clock and the watchdog."""

    def __init__(self, work: Run, rank: Rank, first_step_timeout_seconds: float) -> None:
        self._plan, self._backend = work.plan, work.backend
        self._run_steps = functools.partial(work.backend.run_steps, work.session, work.step)
        self._stop, self._watchdog = rank.stop, rank.watchdog
        self._timeout_seconds = first_step_timeout_seconds
        self._counts_seen: Set[int] = set()

    def run(self, start: int, end: int) -> StepLogs:
        """Runs steps start to end, or fewer if a rank is asked to stop; scalars and progress of the last."""
        count = end - start
        self._watchdog.at(start)
        begun = time.monotonic()
        with contextlib.ExitStack() as first_time:
            if count not in self._counts_seen:
                # A device may compile another graph for another number of steps.
                what = f"running {count} steps for the first time"
                first_time.enter_context(self._watchdog.phase(what, self._timeout_seconds))
            compiles = count not in self._counts_seen
            pulse = _Pulse(start, self._stop, self._watchdog, first_time, compiles)
            self._counts_seen.add(count)
            result = self._run_steps(count, pulse)
        seconds = time.monotonic() - begun
        if not pulse.felt:
            self._watchdog.beat(seconds, compiled=result.untimed_steps > 0)
        done = count if result.stopped_after is None else result.stopped_after
        scalars = {name: float(value) for name, value in result.metrics.items()}
        scalars.update(self._backend.extra_metrics(scalars))
        progress = Progress(
            step=start + done,
            epoch=self._plan.epoch(start + done),
            steps=done,
            timed_steps=done - result.untimed_steps,
            timed_seconds=seconds - result.untimed_seconds,
            data_wait_seconds=result.data_wait_seconds,
        )
        return StepLogs(scalars, progress, interrupted=done < count)

    @contextlib.contextmanager
    def compiling(
        self, announce: Sequence[Callable[[str], ContextManager[None]]], what: str
    ) -> Iterator[None]:
        """Gives a compilation the time of a first step, and says that it is going on."""
        with contextlib.ExitStack() as stack:
            for show in announce:
                stack.enter_context(show(what))
            stack.enter_context(self._watchdog.phase(f"compiling the graph of {what}", self._timeout_seconds))
            yield


class _Pulse:
    """Called between the steps of a chunk: tells the watchdog, and the backend whether to stop."""

    def __init__(
        self,
        step: int,
        stop: StopFlag,
        watchdog: Watchdog,
        first_time: contextlib.ExitStack,
        compiles: bool,
    ) -> None:
        self._step, self._stop, self._watchdog = step, stop, watchdog
        self._first_time, self._compiles = first_time, compiles
        self._before = time.monotonic()
        self.felt = False

    def __call__(self) -> bool:
        now = time.monotonic()
        self._step += 1
        self._watchdog.at(self._step)
        self._watchdog.beat(now - self._before, compiled=self._compiles)
        if not self.felt:
            self._first_time.close()  # only the first step compiles, where they come one by one
            self._compiles, self.felt = False, True
        self._before = now
        return bool(self._stop.signal)


class _Epoch:
    """Begins and ends epochs, and gathers what on_epoch_end reports."""

    def __init__(self, hooks: Hooks, plan: RunPlan) -> None:
        self._hooks, self._plan = hooks, plan
        self._open = -1
        self._steps = 0
        self._sums: Dict[str, float] = {}
        self._last: Dict[str, float] = {}

    def begin(self, step: int) -> None:
        """Begins the epoch that step `step` belongs to, unless it has begun."""
        if self._open >= 0:
            return
        self._open = step // self._plan.steps_per_epoch
        self._steps, self._sums = 0, {}
        self._hooks.on_epoch_begin(self._open)

    def add(self, logs: StepLogs) -> None:
        """Counts a chunk in, before callbacks may add to its logs."""
        steps = logs.progress.steps
        self._steps += steps
        self._last = logs.scalars()
        for name in MEAN_OVER_EPOCH:
            if name in logs:
                self._sums[name] = self._sums.get(name, 0.0) + logs[name] * steps

    def end(self, progress: Progress) -> None:
        """Ends the epoch, unless none is open."""
        if self._open < 0:
            return
        epoch, self._open = self._open, -1
        means = {name: total / self._steps for name, total in self._sums.items()}
        self._hooks.on_epoch_end(epoch, StepLogs({**self._last, **means}, progress))


def _parameters(plan: RunPlan, step: Step) -> Dict[str, object]:
    """What fit would pass to set_params."""
    evaluates = plan.eval_interval_steps > 0
    return {
        "batch_size": plan.global_batch,
        "epochs": math.ceil(plan.total_steps / plan.steps_per_epoch),
        "steps": plan.steps_per_epoch,
        "samples": plan.steps_per_epoch * plan.global_batch,
        "verbose": 1,
        "do_validation": evaluates,
        "metrics": _epoch_columns(step, evaluates),
    }


def _epoch_columns(step: Step, evaluates: bool) -> List[str]:
    """Names that the logs of on_epoch_end hold, those of an epoch with evaluation."""
    names = list(step.metrics)
    if evaluates:
        names += ["val_top1", "val_top5", "val_loss"]
    return names


def _close(callbacks: Sequence[tf.keras.callbacks.Callback]) -> None:
    for callback in reversed(callbacks):
        close = getattr(callback, "close", None)
        if callable(close):
            close()
