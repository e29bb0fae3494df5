"""The best of a run: kept, and waited for."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Callable, Optional

import tensorflow as tf

from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import manifest, run_folder
from densenet_keras.data.classes import LABELS_FILE
from densenet_keras.schedule import PLAN_FILE
from densenet_keras.training.callbacks import metrics
from densenet_keras.training.evaluation import EvalResult

FOLDER = "best"


class KeepBest(tf.keras.callbacks.Callback):
    """Keeps the checkpoint with the best top-1 in log_dir/best, and ends training that no longer improves.

    On the primary only: the other ranks follow its `stop_training`. What earlier evaluations of the same
    run found is read from its metrics.jsonl, so that a continued run goes on as if it had not stopped.
    """

    def __init__(
        self,
        log_dir: str,
        first_step: int,
        keeps: bool,
        patience_evals: Optional[int],
        say: Callable[[str], None],
    ) -> None:
        """
        Args:
            first_step: the step that training starts from; later evaluations are of another attempt.
            keeps: whether to keep the best checkpoint.
            patience_evals: evaluations in a row without a better top-1 that end training; None: never.
            say: takes a line for the log.
        """
        super().__init__()
        self._log_dir, self._keeps, self._patience = log_dir, keeps, patience_evals
        self._say = say
        self._best = float("-inf")
        self._waited = 0
        for step, top1 in metrics.top1_by_step(log_dir).items():
            if step <= first_step:
                self._count(top1)

    def evaluation(self, step: int, epoch: float, result: EvalResult, time_utc: str) -> None:
        """Takes note of one evaluation, whose checkpoint has been saved."""
        if self._count(result.top1) and self._keeps:
            _copy(self._log_dir, step)
        if self._patience is not None and self._waited >= self._patience and not self.model.stop_training:
            self._say(
                f"top-1 has not passed {self._best:.3f} % in {self._waited} evaluations: training ends here "
                "(--patience_evals)"
            )
            self.model.stop_training = True

    def _count(self, top1: float) -> bool:
        """Whether `top1` is the best so far."""
        better = top1 > self._best
        self._best = max(top1, self._best)
        self._waited = 0 if better else self._waited + 1
        return better


def _copy(log_dir: str, step: int) -> None:
    """Puts the checkpoint of `step`, with all that explains it, into log_dir/best in place of another."""
    folder = os.path.join(log_dir, FOLDER)
    name = f"{checkpoint_files.BASENAME}-{step}"
    with checkpoint_files.publishing(os.path.join(folder, name)) as temporary:
        for ending in checkpoint_files.ENDINGS:
            shutil.copyfile(os.path.join(log_dir, name + ending), temporary + ending)
        with contextlib.suppress(FileNotFoundError):  # an earlier version's has none
            shutil.copyfile(os.path.join(log_dir, name + manifest.ENDING), temporary + manifest.ENDING)
    for explaining in (run_folder.RUN_JSON, PLAN_FILE, LABELS_FILE):
        source = os.path.join(log_dir, explaining)
        if os.path.exists(source):
            shutil.copyfile(source, os.path.join(folder, explaining))
    kept = os.path.join(folder, name)
    for other in checkpoint_files.of_run(folder):
        if other.path != kept:
            checkpoint_files.delete(other.path)
    checkpoint_files.write_state(folder, keep=1)
