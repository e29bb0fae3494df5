"""Averages gradients over ranks."""

import os

import tensorflow as tf

from npu_bridge.estimator.npu.npu_common import NPUBasics
from npu_bridge.hccl import hccl_ops


class NPUDistributedOptimizer(tf.compat.v1.train.Optimizer):
    def __init__(self, optimizer, is_weight_update_sharding=False, name=None):
        self._optimizer = optimizer
        super().__init__(name=name or f"Distributed{type(optimizer).__name__}", use_locking=False)

    def compute_gradients(self, *args, **kwargs):
        pairs = self._optimizer.compute_gradients(*args, **kwargs)
        if int(os.environ.get("RANK_SIZE") or 1) <= 1:
            return pairs
        size = NPUBasics("").size()
        with tf.name_scope(self._name + "_Allreduce"):
            return [(g if g is None else hccl_ops.allreduce(g, "sum") / size, v) for g, v in pairs]

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        return self._optimizer.apply_gradients(grads_and_vars, global_step, name)
