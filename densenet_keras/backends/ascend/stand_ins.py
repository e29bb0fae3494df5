"""The adapter's parts as far as plain TensorFlow has them, to build a graph without a device."""

from __future__ import annotations

import contextlib
from typing import Any

import tensorflow as tf

from densenet_keras.backends.ascend import adapter


def adapter_parts() -> adapter.Adapter:
    """Everything that `adapter.load` gives, without effect on any device."""

    class LossScale:
        def __init__(self, value: float = 1.0, **_: Any) -> None:
            self._value = value

        def get_loss_scale(self) -> Any:
            return tf.constant(self._value, tf.float32)

    return adapter.Adapter(
        is_newer=True,
        folder="",
        initialize_system=tf.no_op,
        shutdown_system=tf.no_op,
        set_iteration_per_loop=lambda session, train_op, length: tf.group(train_op, name=adapter.LOOP_OP),
        all_reduce=lambda tensor, reduction, fusion: tf.identity(tensor),
        broadcast=lambda tensors, root: [tf.identity(tensor) for tensor in tensors],
        distributed_optimizer=lambda optimizer: optimizer,
        loss_scale_optimizer=lambda optimizer, manager, is_distributed: optimizer,
        fixed_loss_scale=LossScale,
        dynamic_loss_scale=LossScale,
        keep_dtype_scope=contextlib.nullcontext,
        set_split_strategy_by_idx=lambda values: None,
        set_split_strategy_by_size=lambda values: None,
    )
