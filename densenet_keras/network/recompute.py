"""Feature maps computed anew in the backward pass instead of kept until then: less memory for more time.

Of a recomputed part only inputs and result stay. The gradients are those of the same operations on the same
values, so they are equal bit for bit.
"""

from __future__ import annotations

from typing import Any, Callable, List, Sequence, Tuple

import tensorflow as tf


def held(tensor: tf.Tensor, until: tf.Tensor) -> tf.Tensor:
    """`tensor`, not to be had before `until` is computed.

    This is what frees memory: without it, all that follows would be computed again at once, early.
    """
    with tf.control_dependencies([until]):
        return tf.identity(tensor)


def recomputed(result: tf.Tensor, function: Callable[..., tf.Tensor], inputs: Sequence[Any]) -> tf.Tensor:
    """`result` with the gradients of ``function(*inputs)``, which is computed again where they are.

    Args:
        result: what `function` gives for `inputs`, computed already; nothing before it is differentiated.
        function: of tensors alone: without variables, and without side effects, which would come twice.
        inputs: tensors and variables with respect to which `result` is differentiated.
    """

    @tf.custom_gradient
    def replay(value: tf.Tensor, *kept: tf.Tensor) -> Tuple[tf.Tensor, Callable[..., List[Any]]]:
        def gradients(upstream: tf.Tensor) -> List[Any]:
            again = [held(tensor, upstream) for tensor in kept]
            return [None, *tf.gradients(function(*again), again, upstream)]

        return tf.identity(value), gradients

    return replay(tf.stop_gradient(result), *inputs)
