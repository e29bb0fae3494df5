"""Loss scaling where an overflow gives Inf or NaN: the gradients themselves show it."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

import tensorflow as tf

Pairs = List[Tuple[tf.Tensor, tf.Variable]]


class FiniteLossScaleOptimizer(tf.compat.v1.train.Optimizer):
    """Scales the loss for another optimizer, and leaves out updates whose gradients are not finite.

    The adapter's own asks the device for its overflow mode when the graph is built. No device is up then,
    and where the answer fails, it reads a float status that stays silent in this mode.

    Gradients that are averages over ranks are Inf or NaN on all ranks as soon as they are on one, so all
    decide alike.
    """

    def __init__(self, optimizer: tf.compat.v1.train.Optimizer, manager: Any) -> None:
        """
        Args:
            manager: the adapter's loss scale manager, fixed or dynamic.
        """
        super().__init__(use_locking=False, name="FiniteLossScale")
        self._optimizer, self._manager = optimizer, manager

    def compute_gradients(
        self, loss: tf.Tensor, var_list: Optional[List[tf.Variable]] = None, **arguments: Any
    ) -> Pairs:
        """Gradients of the loss itself, computed from the scaled one."""
        scale = tf.identity(self._manager.get_loss_scale())
        pairs = self._optimizer.compute_gradients(loss * scale, var_list, **arguments)
        inverse = tf.math.reciprocal(scale)
        return [(g if g is None else g * inverse, variable) for g, variable in pairs]

    def apply_gradients(
        self, grads_and_vars: Pairs, global_step: Optional[tf.Variable] = None, name: Optional[str] = None
    ) -> tf.Operation:
        """Applies them if all are finite, global step included; the scale follows in either case."""
        pairs = list(grads_and_vars)
        with tf.name_scope("all_finite"):
            finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient, _ in pairs])
        update = tf.cond(
            finite,
            lambda: tf.group(self._optimizer.apply_gradients(pairs, global_step, name)),
            tf.no_op,
        )
        return tf.group(update, self._manager.update_loss_scale(finite))
