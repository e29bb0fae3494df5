"""Evaluation in the course of training."""

from __future__ import annotations

import datetime
import time
from typing import Callable, Optional, Sequence

import tensorflow as tf

from densenet_keras.schedule import RunPlan, StepLogs
from densenet_keras.training.evaluation import EvalResult

# Called with step, epoch, result, and the time of the checkpoint in UTC.
Report = Callable[[int, float, EvalResult, str], None]

TABLE_HEADER = " step  epoch  top1    top5     loss   checkpoint_time(UTC)"


def table_row(step: int, epoch: float, result: EvalResult, time_utc: str) -> str:
    """One checkpoint under TABLE_HEADER, in the original's columns."""
    return f"{step:5d}  {epoch:5.1f}  {result.top1:5.3f}  {result.top5:6.2f}  {result.loss:6.2f}  {time_utc}"


def format_utc(seconds: float) -> str:
    """A time since 1970, such as a file's, as the table shows it."""
    return datetime.datetime.utcfromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


class Evaluate(tf.keras.callbacks.Callback):
    """Evaluates every `plan.eval_interval_steps` and where training ends, unless a signal ended it.

    On every rank: all of them take part. The results stand in the logs of on_epoch_end for later
    callbacks, as val_top1, val_top5 (percent) and val_loss.
    """

    def __init__(
        self,
        plan: RunPlan,
        evaluate: Callable[[int], Optional[EvalResult]],
        reports: Sequence[Report] = (),
        missed_step: Optional[int] = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            evaluate: given the global step, the result over all ranks, equal on each; None if a signal
                interrupted it: the run that continues makes up for it.
            missed_step: the step that training continues from, if its evaluation is still to be made.
            reports: called with each result; empty on all ranks but the primary.
        """
        super().__init__()
        self._plan = plan
        self._evaluate, self._reports, self._clock = evaluate, reports, clock
        self._missed_step = missed_step
        self._evaluated_step: Optional[int] = None

    def on_train_begin(self, logs: Optional[StepLogs] = None) -> None:
        if self._missed_step is not None:
            self._run(self._missed_step)

    def on_epoch_end(self, epoch: int, logs: StepLogs) -> None:
        step = logs.progress.step
        if not self._plan.evaluates_at(step):
            return
        result = self._run(step)
        if result is None:
            return
        logs.update(val_top1=result.top1, val_top5=result.top5, val_loss=result.loss)

    def on_train_end(self, logs: StepLogs) -> None:
        """Evaluates the end of a training that a callback stopped."""
        trained = logs.progress.steps > 0
        if trained and not logs.interrupted and self._evaluated_step != logs.progress.step:
            self._run(logs.progress.step)

    def _run(self, step: int) -> Optional[EvalResult]:
        time_utc = format_utc(self._clock())
        result = self._evaluate(step)
        self._evaluated_step = step
        if result is None:
            return None
        for report in self._reports:
            report(step, self._plan.epoch(step), result, time_utc)
        return result
