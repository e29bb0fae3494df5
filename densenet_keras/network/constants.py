"""Constants of which a graph needs one node, however often they are used.

TensorFlow makes a node of every number and every shape that an operation is given in Python. A network of
hundreds of layers repeats a few of them, and waits for thousands of nodes at its start.
"""

from __future__ import annotations

from typing import Any, Sequence

import tensorflow as tf

_SCOPE = "constants/"  # with the slash: as it stands, from whatever scope one comes


def number(value: float) -> tf.Tensor:
    """A float32 scalar of the default graph, the same node for the same value."""
    return _shared(f"number_{value!r}", value, tf.float32)


def integer(value: int) -> tf.Tensor:
    """An int32 scalar, such as an axis; as `number`."""
    return _shared(f"integer_{value}", value, tf.int32)


def integers(values: Sequence[Any]) -> tf.Tensor:
    """An int32 vector, such as a shape; as `number`."""
    whole = [int(value) for value in values]
    return _shared("_".join(["integers", *map(str, whole)]), whole, tf.int32)


def _shared(name: str, value: Any, dtype: tf.DType) -> tf.Tensor:
    name = name.replace("+", "")
    graph = tf.compat.v1.get_default_graph()
    try:
        return graph.get_tensor_by_name(f"{_SCOPE}{name}:0")
    except KeyError:
        # Outside of all conditions and loops, so that any part of the graph can use it.
        with tf.control_dependencies(None), tf.name_scope(_SCOPE):
            return tf.constant(value, dtype, name=name)
