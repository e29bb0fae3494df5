"""The learning rate as a function of the step, in the graph and on the host."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from densenet_keras import schedule
from densenet_keras.errors import RunError
from densenet_keras.schedule import StepLogs
from densenet_keras.settings.config import OptimizerConfig

# float32 arithmetic stays below 1e-6 of the base rate; a rate rounded to float16 is off by up to 5e-4.
_TOLERANCE = 1e-5


class CosineLearningRate(tf.keras.callbacks.Callback):
    """Owns the schedule: gives it to the graph as a tensor and checks what the steps used.

    The rate changes within a sunk loop, where no callback runs, so the graph computes it from the
    global step; from the host it could not be set in time.
    """

    def __init__(self, optimizer: OptimizerConfig, steps_per_epoch: int) -> None:
        super().__init__()
        self._base = optimizer.lr
        self._epochs = optimizer.T_max
        self._per_step = optimizer.lr_update == "step"
        self._warmup_epochs = optimizer.warmup_epochs
        self._warmup_steps = int(optimizer.warmup_epochs * steps_per_epoch)
        self._steps_per_epoch = steps_per_epoch

    def value(self, step: int) -> float:
        """Rate of the update that turns global step `step` into `step + 1`."""
        return schedule.learning_rate(
            step,
            base=self._base,
            T_max=self._epochs,
            steps_per_epoch=self._steps_per_epoch,
            warmup_epochs=self._warmup_epochs,
            per_step=self._per_step,
        )

    def tensor(self, step: tf.Tensor) -> tf.Tensor:
        """The same, float32, for each element of `step`, an integer tensor of any shape.

        Build it under `backend.full_precision()`. Per epoch it is exactly the float32 nearest to
        `value`, per step and during warm-up it is within a few units in the last place. Only int32
        and float32 are used: an accelerator may lack float64 and int64.
        """
        with tf.name_scope("cosine_learning_rate"):
            step = tf.cast(step, tf.int32)
            rate = self._cosine_of_step(step) if self._per_step else self._cosine_of_epoch(step)
            if not self._warmup_steps:
                return tf.identity(rate, name="learning_rate")
            fraction = tf.cast(step + 1, tf.float32) / float(self._warmup_steps)
            warm_up = self._base * fraction
            return tf.where(step < self._warmup_steps, warm_up, rate, name="learning_rate")

    def _cosine_of_epoch(self, step: tf.Tensor) -> tf.Tensor:
        """A look-up of values computed here in float64, as the original's table was."""
        table = [
            schedule.learning_rate(epoch, base=self._base, T_max=self._epochs, steps_per_epoch=1)
            for epoch in range(self._epochs + 1)
        ]
        epoch = tf.minimum(step // self._steps_per_epoch, self._epochs)
        return tf.gather(tf.constant(np.array(table, np.float32)), epoch)

    def _cosine_of_step(self, step: tf.Tensor) -> tf.Tensor:
        """base * sin(pi/2 * remaining)^2, which is base * (1 + cos(pi * done)) / 2.

        Near the end, where the cosine comes close to -1, this form keeps its precision, and it is
        exactly zero from T_max on.
        """
        total = self._epochs * self._steps_per_epoch
        remaining = tf.cast(tf.maximum(total - step, 0), tf.float32) / float(total)
        return self._base * tf.square(tf.sin((math.pi / 2) * remaining))

    def on_train_batch_end(self, batch: int, logs: StepLogs) -> None:
        """Compares the rate that the chunk's last step used with the schedule's.

        Raises:
            RunError: they differ: the device computes the rate in too low a precision, or its global
                step is not where the host believes it to be.
        """
        if "learning_rate" not in logs:
            return
        used, step = logs["learning_rate"], logs.progress.step - 1
        if not abs(used - self.value(step)) <= _TOLERANCE * self._base:
            raise RunError(
                f"step {step + 1} used learning rate {used:.8g}, the schedule says {self.value(step):.8g}; "
                "either the device rounds it (keep it out of mixed precision), or the global step on the "
                "device is not the host's"
            )
