"""How much memory of a device a graph will need, predicted from its shapes."""

from __future__ import annotations

from typing import Any, List, NamedTuple

import tensorflow as tf

from densenet_keras.backends.ascend import chips
from densenet_keras.errors import RunError
from densenet_keras.settings.config import Config

_GIB = 1024.0**3


class Memory(NamedTuple):
    """Predicted bytes on one device."""

    parameters: int  # variables that are trained, and moving averages, float32
    slots: int
    gradients: int
    activations: int  # tensors that the forward pass leaves for the backward pass
    batch: int  # one input batch on its way, and the one the step reads

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


def predict(graph: Any, model_variables: List[Any], config: Config) -> Memory:
    """Predicts from shapes alone.

    Activations are the tensors that gradient operations read of other operations, each once, at 2 bytes
    a float where mixed precision stores float16. What the compiler needs for workspaces and copies in its
    own layouts comes on top, what it fuses away comes off.
    """
    half = config.ascend.precision_mode != "must_keep_origin_dtype"
    gradient_ops = [op for op in graph.get_operations() if op.name.startswith("gradients")]
    mine = set(gradient_ops)
    kept = {t for op in gradient_ops for t in op.inputs if t.op not in mine and t.dtype.is_floating}
    variable_reads = {t for t in kept if t.op.type in ("ReadVariableOp", "Const")}
    activations = 0
    for tensor in kept - variable_reads:
        elements = tensor.shape.num_elements() or 0
        activations += elements * (2 if half else tensor.dtype.size)
    trained = sum(v.shape.num_elements() * 4 for v in tf.compat.v1.trainable_variables())
    parameters = sum(v.shape.num_elements() * v.dtype.size for v in model_variables)
    trains = trained if gradient_ops else 0
    side = config.model.image_size or 0
    batch = 2 * config.data.batch_size * side * side * 3
    return Memory(parameters, trains, trains, activations, batch)


def describe(graph: Any, variables: List[Any], config: Config) -> List[str]:
    """Predicted memory in words.

    Raises:
        RunError: it is more than a device has.
    """
    memory = predict(graph, variables, config)
    parts = ", ".join(f"{name} {value / _GIB:.2f}" for name, value in memory._asdict().items())
    lines = [
        f"predicted memory of one device: {memory.total / _GIB:.2f} GiB = {parts}",
        "activations: tensors that the backward pass reads, 2 bytes a float under mixed precision; compiler "
        "workspace comes on top",
    ]
    limit = chips.of(config).memory_bytes
    if memory.total > limit:
        raise RunError(
            "\n".join(lines) + f"\nmore than the {limit / _GIB:.0f} GiB of a device: lower --batch_size"
        )
    return lines
