"""Counts the steps that loss scaling skips, on the device, so that a loop of many steps loses none.

A skipped step is a step: it took its batch, and the global step, the learning rate and the place in the
data move on; only the update of the weights is left out. So steps run, global step and data position
agree whatever overflows, and a resumed run sees the same batches.
"""

from __future__ import annotations

import logging
from typing import Any, Dict, List

import tensorflow as tf

from densenet_keras.errors import RunError

logger = logging.getLogger(__name__)

_SKIPPED = "skipped_steps"
_MOST_IN_ROW = "most_skipped_in_row"
_LOSS_SCALE = "loss_scale"


class OverflowCounter:
    """Device-side counts of skipped steps since the session began, and what the host makes of them.

    Its variables are local ones, so no checkpoint holds them.

    Attributes:
        applied: int32 variable that the optimizer must advance as if it were the global step, which it
            does in the branch of an applied update only: the one sign of a skipped step that needs no
            knowledge of how the hardware reports overflow.
    """

    def __init__(self, max_skipped_steps: int, keep_float32: str) -> None:
        """
        Args:
            keep_float32: how to keep an operator in float32, in words, for the message about the limit.
        """
        self._limit = max_skipped_steps
        self._keep_float32 = keep_float32
        self._reported_skips = 0
        with tf.name_scope(None):
            self.applied = _counter("overflow/applied_steps")
            self._applied_before = _counter("overflow/applied_steps_before")
            self._skipped = _counter("overflow/skipped_steps")
            self._in_row = _counter("overflow/skipped_in_row")
            self._most_in_row = _counter("overflow/most_skipped_in_row")
        self._updates: List[tf.Operation] = []

    def count(self, update: tf.Operation, loss_scale: Any) -> Dict[str, tf.Tensor]:
        """Counts the step whose update, or its skipping, is `update`: float32 scalars for `report`.

        Args:
            loss_scale: float32 tensor or variable.
        """
        with tf.control_dependencies([update]), tf.name_scope("count_overflow"):
            applied = self.applied.read_value()
            skips = 1 - (applied - self._applied_before.read_value())  # of this step: 0 or 1
            skipped = self._skipped.read_value() + skips
            in_row = (self._in_row.read_value() + 1) * skips
            most = tf.maximum(self._most_in_row.read_value(), in_row)
            with tf.control_dependencies([skips]):  # which reads what this replaces
                remember = self._applied_before.assign(applied, read_value=False)
            self._updates = [
                remember,
                self._skipped.assign(skipped, read_value=False),
                self._in_row.assign(in_row, read_value=False),
                self._most_in_row.assign(most, read_value=False),
            ]
            read = getattr(loss_scale, "read_value", None)
            scale = read() if read else tf.identity(loss_scale)
            counts = {_SKIPPED: skipped, _MOST_IN_ROW: most, _LOSS_SCALE: scale}
            return {name: tf.cast(value, tf.float32) for name, value in counts.items()}

    @property
    def updates(self) -> List[tf.Operation]:
        """What a step must also run, once `count` was called."""
        return self._updates

    def report(self, counts: Dict[str, float], is_primary: bool) -> Dict[str, float]:
        """Logs new skips; returns what belongs in a log line.

        Raises:
            RunError: more steps in a row were skipped than the limit, which is the same on all ranks.
        """
        skipped, scale = int(counts[_SKIPPED]), counts[_LOSS_SCALE]
        if skipped > self._reported_skips and is_primary:
            logger.warning(
                "%d steps skipped for overflow, %d since the start; loss scale now %g",
                skipped - self._reported_skips,
                skipped,
                scale,
            )
        self._reported_skips = skipped
        in_row = int(counts[_MOST_IN_ROW])
        if in_row > self._limit:
            raise RunError(
                f"{in_row} steps in a row were skipped for overflow, more than --max_skipped_steps "
                f"{self._limit}, at loss scale {scale:g}: the weights no longer change. Lower --loss_scale, "
                f"or find the overflowing operator with --overflow_debug DIR and {self._keep_float32}"
            )
        return {_SKIPPED: float(skipped), _LOSS_SCALE: scale}


def _counter(name: str) -> tf.Variable:
    return tf.compat.v1.Variable(
        0,
        name=name,
        dtype=tf.int32,
        trainable=False,
        use_resource=True,
        collections=[tf.compat.v1.GraphKeys.LOCAL_VARIABLES],
    )
