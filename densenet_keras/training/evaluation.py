"""Exact evaluation: every image of the split once, over all ranks."""

from __future__ import annotations

import time
from typing import NamedTuple, Optional

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from densenet_keras.backends.base import Backend
from densenet_keras.data.inputs import Inputs, naming_bad_records
from densenet_keras.errors import RunError
from densenet_keras.network.densenet import build_densenet
from densenet_keras.training import steps
from densenet_keras.watchdog import Watchdog

QUIET_SECONDS = 30.0


class EvalResult(NamedTuple):
    """Figures of one evaluation over the whole split."""

    top1: float  # percent
    top5: float  # percent
    loss: float  # mean cross-entropy in nats, without label smoothing
    images: int
    seconds: float


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
        model: Optional[tf.keras.Model],
        inputs: Inputs,
        host_sum: steps.HostSum,
        backend: Backend,
        watchdog: Watchdog,
        interactive: bool,
    ) -> None:
        """Adds nodes to the default graph.

        Args:
            model: the trained model, which is called in inference form; None to build one directly on
                the evaluation batch, with the learning phase fixed to 0.
            host_sum: sums three integers and one float over ranks.
            interactive: draw a progress bar at once; otherwise only if an evaluation takes long.
        """
        config = backend.config
        self.host_sum, self._watchdog = host_sum, watchdog
        self._batches, self._images = inputs.eval_batches, inputs.eval_images
        self._timeout_seconds = float(config.device.first_step_timeout_seconds)
        self._is_primary = backend.topology.is_primary
        self._bar_options = {} if interactive else {"delay": QUIET_SECONDS, "mininterval": QUIET_SECONDS}
        self.iterator = tf.compat.v1.data.make_initializable_iterator(inputs.eval_dataset())
        images, labels, weights = self.iterator.get_next()
        network_input = steps.network_input(images, config.model.dtype)
        if model is None:
            model = build_densenet(config.model, network_input)
            logits = model.outputs[0]
        else:
            logits = model(network_input, training=False)
        self.model = model
        self.sums = steps.build_eval_step(logits, labels, weights, backend)

    def run(self, session: tf.compat.v1.Session, step: int) -> EvalResult:
        """Evaluates the variables of the session, those of global step `step`.

        Raises:
            RunError: the ranks together did not see every image once, or a record is damaged.
        """
        started = time.monotonic()
        counts, loss = np.zeros(3, np.int64), 0.0
        bar = tqdm(
            total=self._batches,
            desc=f"evaluating step {step}",
            unit="batch",
            leave=False,
            position=0,  # in the place of the training bar, which stands still meanwhile
            disable=not self._is_primary,
            **self._bar_options,
        )
        with bar, naming_bad_records(), self._watchdog.phase("evaluating", self._timeout_seconds):
            for _ in range(self._batches):
                sums = session.run(self.sums)
                counts += (sums.top1, sums.top5, sums.images)
                loss += float(sums.loss)
                self._watchdog.beat()
                bar.update()
            (top1, top5, images), (loss_sum,) = self.host_sum(session, counts.tolist(), [loss])
        if images != self._images:
            raise RunError(
                f"evaluation saw {images} images of {self._images}; every image must count once: the "
                "validation shards changed during the run, or ranks read different data"
            )
        return EvalResult(
            top1=100.0 * top1 / images,
            top5=100.0 * top5 / images,
            loss=loss_sum / images,
            images=int(images),
            seconds=time.monotonic() - started,
        )
