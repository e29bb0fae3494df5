"""What an epoch came to, and what the run did in the end."""

from __future__ import annotations

import time
from typing import Callable, Dict, Optional, Tuple

import tensorflow as tf
from tqdm import tqdm

from densenet_keras.schedule import RunPlan, StepLogs
from densenet_keras.settings.rules import counted
from densenet_keras.training.evaluation import EvalResult

_FIGURES = (
    ("loss", "{:.3f}"), ("total_loss", "{:.3f}"), ("learning_rate", "{:.5f}"), ("val_loss", "{:.3f}"),
    ("val_top1", "{:.2f}%"), ("val_top5", "{:.2f}%"),
)  # fmt: skip


class Summary(tf.keras.callbacks.Callback):
    """A line for each epoch and the last lines of the run; behind Evaluate, whose figures it shows."""

    def __init__(
        self,
        plan: RunPlan,
        write: Callable[[str], None],
        log_dir: str,
        command: str,
        past: Optional[Dict[int, float]] = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            write: takes each line.
            command: what continues the run.
            past: top-1 in percent by step, of evaluations before this start.
            clock: seconds.
        """
        super().__init__()
        self._plan, self._write, self._clock = plan, write, clock
        self._log_dir, self._command = log_dir, command
        self._top1 = dict(past or {})
        self._begun = self._epoch_begun = clock()

    def evaluation(self, step: int, epoch: float, result: EvalResult, time_utc: str) -> None:
        """Takes the result of one evaluation."""
        self._top1[step] = result.top1

    def on_train_begin(self, logs: Optional[StepLogs] = None) -> None:
        self._begun = self._clock()

    def on_epoch_begin(self, epoch: int, logs: Optional[StepLogs] = None) -> None:
        self._epoch_begun = self._clock()

    def on_epoch_end(self, epoch: int, logs: StepLogs) -> None:
        figures = [f"{name} {form.format(logs[name])}" for name, form in _FIGURES if name in logs]
        seconds = self._clock() - self._epoch_begun
        self._write(f"epoch {epoch + 1} in {tqdm.format_interval(seconds)}: {', '.join(figures)}")

    def on_train_end(self, logs: StepLogs) -> None:
        step, total = logs.progress.step, self._plan.total_steps
        took = tqdm.format_interval(self._clock() - self._begun)
        steps = f"{step} of {counted(total, 'step')}"
        if step == total:
            words = f"finished: {steps}, {took}"
        else:
            words = f"stopped by a {'signal' if logs.interrupted else 'callback'}: {steps}, {took}"
        self._write(f"{words}{self._accuracy()}; step {step} is saved in {self._log_dir}")
        if step == total:
            self._write(f"to train longer, with --max_epochs or --max_train_steps raised: {self._command}")
        else:
            self._write(f"to continue: {self._command}")

    def _accuracy(self) -> str:
        if not self._top1:
            return ""
        best_step, best = _best(self._top1)
        last = self._top1[max(self._top1)]
        return f"; top-1 {last:.2f}% at the last evaluation, best {best:.2f}% at step {best_step}"


def _best(top1: Dict[int, float]) -> Tuple[int, float]:
    """Step and top-1 of the best evaluation, of equal ones the first."""
    step = max(sorted(top1), key=lambda step: top1[step])
    return step, top1[step]
