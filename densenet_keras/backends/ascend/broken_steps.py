"""Counts, on the device, how many steps in a row have had a loss that is not finite.

Of the steps of one session.run the host sees the losses of the last alone; with this count it can name the
first one that went wrong.
"""

from __future__ import annotations

from typing import List

import tensorflow as tf

NAME = "steps_not_finite"


class BrokenSteps:
    """The count up to the last step made. Its variable is a local one, so no checkpoint holds it.

    Attributes:
        updates: what a step must also run.
        in_row: float32 scalar, the count after the step.
    """

    def __init__(self, losses: tf.Tensor) -> None:
        """
        Args:
            losses: ``[n] float32`` of a step, the same on all ranks; build this under full precision.
        """
        with tf.name_scope(None):
            counted = tf.compat.v1.Variable(
                0,
                name="broken/steps_in_row",
                dtype=tf.int32,
                trainable=False,
                use_resource=True,
                collections=[tf.compat.v1.GraphKeys.LOCAL_VARIABLES],
            )
        with tf.name_scope("count_broken"):
            fits = tf.less_equal(tf.abs(tf.reduce_sum(losses)), losses.dtype.max)  # false of NaN
            in_row = (counted.read_value() + 1) * (1 - tf.cast(fits, tf.int32))
            self.updates: List[tf.Operation] = [counted.assign(in_row, read_value=False)]
            self.in_row = tf.cast(in_row, tf.float32)
