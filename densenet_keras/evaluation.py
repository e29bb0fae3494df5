"""Exact evaluation: every image of the split once, over all ranks."""

from __future__ import annotations

import time
from typing import Callable, NamedTuple, Optional

import numpy as np
import tensorflow as tf

from densenet_keras.errors import RunError
from densenet_keras.objective import EvalSums
from densenet_keras.steps import HostSum


class EvalResult(NamedTuple):
    """Figures of one evaluation over the whole split."""

    top1: float  # percent
    top5: float  # percent
    loss: float  # mean cross-entropy in nats, without label smoothing
    images: int
    seconds: float


class Evaluator:
    """Evaluates the variables of a session, on all ranks together.

    The input repeats the split without end, and each evaluation takes exactly one pass of it, so that
    one initialisation serves any number of evaluations.

    Args:
        sums: of one batch of this rank.
        host_sum: sums three integers and one float over ranks.
        batches: batches of this rank in one pass, the same on every rank.
        images: size of the split.
        beat: called after each batch, with its number from 1.
    """

    def __init__(
        self,
        sums: EvalSums,
        host_sum: HostSum,
        batches: int,
        images: int,
        beat: Optional[Callable[[int], None]] = None,
    ) -> None:
        self._sums = sums
        self._host_sum = host_sum
        self.batches = batches
        self.images = images
        self._beat = beat or (lambda batch: None)

    def run(self, session: tf.compat.v1.Session, on_batch: Callable[[], object] = lambda: None) -> EvalResult:
        """One pass over the split.

        Args:
            on_batch: called after each batch of this rank.

        Raises:
            RunError: the ranks together did not see every image once.
        """
        started = time.monotonic()
        counts = np.zeros(3, np.int64)
        loss = 0.0
        for batch in range(1, self.batches + 1):
            sums = session.run(self._sums)
            counts += (sums.top1, sums.top5, sums.images)
            loss += float(sums.loss)
            self._beat(batch)
            on_batch()
        (top1, top5, images), (loss_sum,) = self._host_sum(session, counts.tolist(), [loss])
        if images != self.images:
            raise RunError(
                f"evaluation saw {images} images of {self.images}; every image must count once: the "
                "validation shards changed during the run, or ranks read different data"
            )
        return EvalResult(
            top1=100.0 * top1 / images,
            top5=100.0 * top5 / images,
            loss=loss_sum / images,
            images=int(images),
            seconds=time.monotonic() - started,
        )
