"""Fixed and adapting loss scales."""

import tensorflow as tf


class FixedLossScaleManager:
    def __init__(self, loss_scale):
        if loss_scale < 1:
            raise ValueError("loss scale must be at least 1.")
        self._loss_scale = tf.convert_to_tensor(loss_scale, tf.float32)

    def get_loss_scale(self):
        return self._loss_scale

    def update_loss_scale(self, finite_grads):
        return tf.no_op()


class ExponentialUpdateLossScaleManager:
    def __init__(
        self, init_loss_scale, incr_every_n_steps, decr_every_n_nan_or_inf=2, incr_ratio=2, decr_ratio=0.8
    ):
        # The compiler rejects managers that wait for other operations.
        if tf.compat.v1.get_default_graph()._control_dependencies_for_inputs([]):
            raise RuntimeError("Placeholder not support")
        self._incr_every, self._decr_every = incr_every_n_steps, decr_every_n_nan_or_inf
        self._incr_ratio, self._decr_ratio = incr_ratio, decr_ratio
        self._scale = _variable("loss_scale", init_loss_scale, tf.float32)
        self._good = _variable("good_steps", 0, tf.int32)
        self._bad = _variable("bad_steps", 0, tf.int32)

    def get_loss_scale(self):
        return self._scale

    def update_loss_scale(self, finite_grads):
        assign, cond = tf.compat.v1.assign, tf.cond

        def change(scale):
            return tf.group(assign(self._scale, scale), assign(self._good, 0), assign(self._bad, 0))

        def good():
            return cond(
                self._good + 1 >= self._incr_every,
                lambda: change(self._scale * self._incr_ratio),
                lambda: tf.group(assign(self._good, self._good + 1)),
            )

        def bad():
            return cond(
                self._bad + 1 >= self._decr_every,
                lambda: change(tf.maximum(1.0, self._scale * self._decr_ratio)),
                lambda: tf.group(assign(self._bad, self._bad + 1), assign(self._good, 0)),
            )

        return cond(finite_grads, good, bad)


def _variable(name, value, dtype):
    return tf.compat.v1.Variable(value, name=name, dtype=dtype, trainable=False, use_resource=False)
