"""Exact evaluation: every image of the split once, over all ranks."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from typing import Iterator, NamedTuple, Optional

import numpy as np
import tensorflow as tf

from densenet_keras.backends.base import Backend
from densenet_keras.data.inputs import Inputs, naming_bad_records
from densenet_keras.errors import RunError
from densenet_keras.network.densenet import build_densenet
from densenet_keras.rank import Rank
from densenet_keras.settings.config import Config
from densenet_keras.terminal import Bar, compiling
from densenet_keras.training import steps
from densenet_keras.training.agreement import HostSum

QUIET_SECONDS = 30.0
AGREEING_SECONDS = 2.0  # from one time that ranks ask each other whether to stop to the next


class EvalResult(NamedTuple):
    """Figures of one evaluation over the whole split."""

    top1: float  # percent
    top5: float  # percent
    loss: float  # mean cross-entropy in nats, without label smoothing
    images: int  # that were evaluated
    seconds: float
    bad_records: int = 0  # images that could not be


class Validation:
    """The evaluation side of a graph, and its runs, in which all ranks take part.

    The input repeats the split without end, and each evaluation takes exactly one pass of it, so that
    one initialisation of `iterator` serves any number of evaluations.

    Attributes:
        model: the model evaluated.
        iterator: over evaluation batches; to be initialised in a run of its own.
        sums: what each batch fetches.
        host_sum: sums small vectors of this graph's ranks.
    """

    def __init__(
        self,
        config: Config,
        inputs: Inputs,
        backend: Backend,
        host_sum: HostSum,
        model: Optional[tf.keras.Model] = None,
    ) -> None:
        """Adds nodes to the default graph.

        Args:
            host_sum: that of the session, see `agreement`.
            model: the trained model, which is called in inference form; None to build one directly on
                the evaluation batch, with the learning phase fixed to 0.
        """
        self.host_sum = host_sum
        self._inputs = inputs
        self._batches, self._images = inputs.eval_batches, inputs.eval_images
        self._timeout_seconds = float(config.device.first_step_timeout_seconds)
        self._to_compile = backend.compiles_graphs
        self.iterator = tf.compat.v1.data.make_initializable_iterator(inputs.eval_dataset())
        images, labels, weights = self.iterator.get_next()
        network_input = steps.network_input(images, config.model)
        if model is None:
            model = build_densenet(config.model, network_input)
        self.model = model
        logits = steps.inference_logits(model, network_input, backend)
        self.sums = steps.build_eval_step(logits, labels, weights, backend)

    def run(self, session: tf.compat.v1.Session, step: int, rank: Rank) -> Optional[EvalResult]:
        """Evaluates the variables of the session, those of global step `step`; called by all ranks.

        None if a rank was asked to stop: all ranks then end after the same batch.

        A progress bar appears at once where a person watches, otherwise only if it takes long.

        Raises:
            RunError: the ranks together did not see every image once, bad records apart, or more of these
                were met than the run permits.
        """
        started = time.monotonic()
        counts, loss = np.zeros(3, np.int64), 0.0
        patience = {} if rank.is_watched else {"delay": QUIET_SECONDS, "mininterval": QUIET_SECONDS}
        bar = Bar(
            total=self._batches,
            desc=f"evaluating step {step}",
            unit="batch",
            leave=False,
            position=0,  # in the place of the training bar, which stands still meanwhile
            disable=not rank.topology.is_primary,
            **patience,
        )
        evaluating = rank.watchdog.phase("evaluating", self._timeout_seconds, kind="evaluating")
        with bar, naming_bad_records(), evaluating:
            agreement = _StopAgreement(self.host_sum, session, rank)
            for done in range(1, self._batches + 1):
                with self._announced(bar, rank):
                    batch = session.run(self.sums)
                counts += (batch.top1, batch.top5, batch.images)
                loss += float(batch.loss)
                rank.watchdog.beat()
                bar.update()
                if done < self._batches and agreement.asks_to_stop(done):
                    rank.stop.request(signal.SIGTERM)  # on the ranks that got no signal
                    return None
            known = self._inputs.bad_eval_images()
            sums = self.host_sum(session, {"counts": [*counts.tolist(), known], "loss": [loss]})
        top1, top5, images, known = sums["counts"]
        # One may be known that was still good when this pass came to it: batches are prepared ahead.
        if not self._images - known <= images <= self._images or images == 0:
            raise RunError(
                f"evaluation saw {images} images of {self._images}; every image must count once: the "
                "validation shards changed during the run, or ranks read different data"
            )
        return EvalResult(
            top1=100.0 * top1 / images,
            top5=100.0 * top5 / images,
            loss=sums["loss"][0] / images,
            images=int(images),
            seconds=time.monotonic() - started,
            bad_records=int(self._images - images),
        )

    @contextlib.contextmanager
    def _announced(self, bar: Bar, rank: Rank) -> Iterator[None]:
        """Around each batch: a device compiles for the first one of all, which takes minutes."""
        with contextlib.ExitStack() as stack:
            if self._to_compile:
                self._to_compile = False
                if rank.topology.is_primary:
                    stack.enter_context(compiling("evaluation", bar if rank.is_watched else None, sys.stderr))
                stack.enter_context(rank.watchdog.phase("compiling the evaluation", self._timeout_seconds))
            yield


class _StopAgreement:
    """Whether a rank was asked to stop, known to all after the same batch, at a negligible cost."""

    def __init__(self, host_sum: HostSum, session: tf.compat.v1.Session, rank: Rank) -> None:
        self._sum = lambda name, value: float(host_sum(session, {name: [value]})[name][0])
        self._rank = rank
        self._started = time.monotonic()
        self._next = 1

    def asks_to_stop(self, done: int) -> bool:
        """To be called by all ranks after each batch, the `done`th of this evaluation."""
        if self._rank.topology.size == 1:
            return self._rank.stop.is_set
        if done < self._next:
            return False
        # The same number on all ranks, so that they agree about when to agree again.
        mean_seconds = self._sum("loss", time.monotonic() - self._started) / self._rank.topology.size / done
        self._next = done + max(1, int(AGREEING_SECONDS / max(mean_seconds, 1e-3)))
        return self._sum("requests", int(self._rank.stop.is_set)) > 0
