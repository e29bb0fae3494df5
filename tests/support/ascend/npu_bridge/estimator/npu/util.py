"""The loop on the device, as a session program asks for it."""

import tensorflow as tf
from tensorflow.python.framework import ops

SCOPE = "npu_runconfig"
NAMES = ("iterations_per_loop", "loop_cond", "zero", "one")


def check_positive_integer(value, name):
    if not isinstance(value, int):
        raise TypeError(f"{name} must be int, got {type(value)}")
    if value <= 0:
        raise ValueError(f"{name} must be positive, got {value}")


def create_or_get_var(name):
    collection = f"{SCOPE}_{name}"
    existing = tf.compat.v1.get_collection(collection)
    if existing:
        return existing[0]
    step = tf.compat.v1.train.get_global_step()
    with ops.colocate_with(step, ignore_existing=step is None), tf.compat.v1.variable_scope(
        SCOPE, reuse=tf.compat.v1.AUTO_REUSE
    ):
        return tf.compat.v1.get_variable(
            name,
            shape=[],
            dtype=tf.int64,
            initializer=tf.zeros_initializer(),
            trainable=False,
            collections=[collection, tf.compat.v1.GraphKeys.LOCAL_VARIABLES],
            use_resource=True,
        )


def _check_operation(train_op):
    if not isinstance(train_op, tf.Operation):
        raise ValueError(f"the train_op is a {train_op.dtype.name}, it must be an Operation")


def _load(sess, variables, iterations):
    for variable, value in zip(variables, (iterations - 1, 0, 0, 1)):
        variable.load(value, session=sess)


def set_iteration_per_loop(sess, train_op, iterations_per_loop=1):
    _check_operation(train_op)
    check_positive_integer(iterations_per_loop, "iterations_per_loop")
    if iterations_per_loop == 1:
        return train_op
    _load(sess, [create_or_get_var(name) for name in NAMES], iterations_per_loop)
    return tf.group(train_op, name="IterationOp")


class IterationPerLoop:
    """The same in two halves, before and after the graph is final."""

    def create_iteration_per_loop_var(self, train_op):
        _check_operation(train_op)
        self._variables = [create_or_get_var(name) for name in NAMES]
        return tf.group(train_op, name="IterationOp")

    def load_iteration_per_loop_var(self, sess, iterations_per_loop=1):
        check_positive_integer(iterations_per_loop, "iterations_per_loop")
        _load(sess, self._variables, iterations_per_loop)
