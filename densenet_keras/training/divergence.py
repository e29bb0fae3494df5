"""Steps whose numbers are no numbers any more: noticed by what the host fetches anyway."""

from __future__ import annotations

import math
from typing import Mapping, Optional

from densenet_keras.errors import RunError

# Metrics of a step with --gradient_norm_limit: the length of its gradient, and how many were too long.
GRADIENT_NORM = "gradient_norm"
LONG_GRADIENTS = "long_gradients"


class Diverged(RunError):
    """Steps went wrong, and nothing of them has been saved.

    Attributes:
        start: the global step before the chunk in which it was noticed.
        step: the global step after it.
        what: what is wrong, in words.
    """

    def __init__(self, start: int, step: int, what: str) -> None:
        super().__init__(f"{what} at step {step}")
        self.start, self.step, self.what = start, step, what


class Detector:
    """Tells from the metrics of a step whether it went wrong.

    total_loss is the one scalar that stands for all weights: it holds the sum of their squares, so it is not
    finite one step after a gradient was not. What it does not hold (a gradient of the last step before a
    checkpoint; variables without weight decay) is found when the checkpoint is to be saved, before it is.

    Losses are averaged over ranks in the step, so all ranks are told the same.

    The loss of a step that the backend skipped for overflow may be anything: that step changed no weight, and
    the backend itself limits how many are skipped. It tells so by `skipped_steps`, a count since the start.
    """

    def __init__(self) -> None:
        self._skipped_steps = self._long_gradients = 0.0

    def problem(self, metrics: Mapping[str, float]) -> Optional[str]:
        """What is wrong, in words; None if nothing is. To be asked of each step or chunk, in order."""
        skipped_before, self._skipped_steps = self._skipped_steps, metrics.get("skipped_steps", 0.0)
        long_before, self._long_gradients = self._long_gradients, metrics.get(LONG_GRADIENTS, 0.0)
        if self._skipped_steps > skipped_before:
            return None
        for name, value in metrics.items():
            if name.endswith("loss") and not math.isfinite(value):
                return f"{name} is {value}"
        if self._long_gradients > long_before:
            return "the gradient is longer than --gradient_norm_limit, or not finite,"
        return None
