"""Scales the loss and skips updates that overflowed, by the status register and not by NaN."""

import tensorflow as tf

from npu_bridge.hccl import hccl_ops
from npu_bridge.helper import helper

gen_npu_ops = helper.get_gen_ops()


class NPULossScaleOptimizer(tf.compat.v1.train.Optimizer):
    """Does not pass get_slot, get_slot_names or variables on, as the older generation does not."""

    def __init__(self, opt, loss_scale_manager, is_distributed=False):
        super().__init__(name="NPULossScaleOptimizer", use_locking=False)
        self._opt = opt
        self._manager = loss_scale_manager
        self._is_distributed = is_distributed
        self._status = tf.constant([0.0])

    def compute_gradients(self, loss, var_list=None, **kwargs):
        scale = self._manager.get_loss_scale()
        self._status = gen_npu_ops.npu_alloc_float_status()
        pairs = self._opt.compute_gradients(loss * scale, var_list=var_list, **kwargs)
        inverse = tf.math.reciprocal(scale)
        return [(g if g is None else g * inverse, v) for g, v in pairs]

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        grads = [gradient for gradient, _ in grads_and_vars if gradient is not None]
        with tf.control_dependencies(grads):
            written = gen_npu_ops.npu_get_float_status(self._status)
            cleared = gen_npu_ops.npu_clear_float_status(written)
        status = self._status
        if self._is_distributed:
            with tf.control_dependencies([written]):
                status = hccl_ops.allreduce([self._status], "sum", fusion=0)
        finite = tf.reduce_all(tf.equal(status, cleared))
        update = tf.cond(
            finite, lambda: self._opt.apply_gradients(grads_and_vars, global_step, name), tf.no_op
        )
        return tf.group(update, self._manager.update_loss_scale(finite))
