"""How much memory of a device a graph will need, predicted from its shapes."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import tensorflow as tf

from densenet_keras.backends.ascend import chips, graph_check, loop_plan, option_keys
from densenet_keras.backends.ascend import flags as npu_flags
from densenet_keras.errors import RunError
from densenet_keras.schedule import RunPlan
from densenet_keras.settings.config import Config

_GIB = 1024.0**3
_VALUES_OF_VARIABLES = ("ReadVariableOp", "Const")


class Memory(NamedTuple):
    """Predicted bytes on one device."""

    parameters: int  # variables that are trained, and moving averages, float32
    slots: int
    gradients: int
    activations: int  # tensors that the forward pass leaves for the backward pass
    batch: int  # one input batch on its way, and the one the step reads

    @property
    def feature_maps(self) -> int:
        """What belongs to the graph; variables belong to the session."""
        return self.gradients + self.activations + self.batch

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
    gradient_ops = [op for op in graph.get_operations() if op.name.startswith("gradients")]
    mine = set(gradient_ops)
    kept = {t for op in gradient_ops for t in op.inputs if t.op not in mine and t.dtype.is_floating}
    activations = sum(_bytes(t, config) for t in kept if t.op.type not in _VALUES_OF_VARIABLES)
    trained = sum(v.shape.num_elements() * 4 for v in tf.compat.v1.trainable_variables())
    parameters = sum(v.shape.num_elements() * v.dtype.size for v in model_variables)
    trains = trained if gradient_ops else 0
    side = config.model.image_size or 0
    batch = 2 * config.data.batch_size * side * side * 3
    return Memory(parameters, trains, trains, activations, batch)


def peak(fetches: Sequence[Any], config: Config) -> int:
    """Bytes of the tensors of a graph that are alive at once, each from its operation to its last reader.

    For graphs without a backward pass; in the order in which the operations were built, and without the
    reads of variables.
    """
    ops = graph_check.ancestors(fetches[0].graph, fetches)
    last_reader = {tensor: position for position, op in enumerate(ops) for tensor in op.inputs}
    ends: Dict[int, int] = {}
    alive = most = 0
    for position, op in enumerate(ops):
        for tensor in op.outputs if op.type not in _VALUES_OF_VARIABLES else ():
            size = _bytes(tensor, config)
            alive += size
            end = last_reader.get(tensor, position)
            ends[end] = ends.get(end, 0) + size
        most = max(most, alive)
        alive -= ends.get(position, 0)
    return most


def describe(
    graphs: Sequence[Tuple[str, Sequence[Any]]],
    variables: List[Any],
    config: Config,
    plan: Optional[RunPlan],
) -> List[str]:
    """Predicted memory in words.

    Args:
        graphs: purpose and fetches of each, the one for training or evaluation alone first.
        plan: of a training.

    Raises:
        RunError: the first graph needs more than a device has.
    """
    fetches = dict(graphs)
    memory = predict(graphs[0][1][0].graph, variables, config)
    if plan is None:
        memory = memory._replace(activations=peak(fetches["evaluation"], config))
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
    further: Dict[str, int] = {}
    if plan is not None and loop_plan.choose(plan, 0).single_steps:
        further["single steps"] = memory.feature_maps
    if plan is not None and "evaluation" in fetches:
        further["evaluation"] = peak(fetches["evaluation"], config) + memory.batch
    return [*lines, *_together(memory, further, config, plan)] if further else lines


def _together(memory: Memory, further: Dict[str, int], config: Config, plan: Optional[RunPlan]) -> List[str]:
    """What the graphs of a session need beside one another; variables are common to all."""
    assert plan is not None
    named = ", ".join(f"{name} {size / _GIB:.2f} GiB" for name, size in further.items())
    variables = memory.total - memory.feature_maps
    if _shares_memory(config):
        total = variables + max(memory.feature_maps, *further.values())
        return [
            f"further graphs, which share the memory of the largest (static_memory_policy): {named}; "
            f"{total / _GIB:.2f} GiB in all"
        ]
    total = memory.total + sum(further.values())
    line = f"further graphs, each with memory of its own: {named}; {total / _GIB:.2f} GiB in all"
    limit = chips.of(config).memory_bytes
    if total <= limit:
        return [line]
    fitting = " Without single steps (--iterations_per_loop 0) there is one graph less."
    return [
        line,
        f"more than the {limit / _GIB:.0f} GiB of a device: the graph engine unloads graphs, and loads them "
        f"again where the run changes from one to another, {loop_plan.changes_of_graph(plan)} times in this "
        "run. With the newer adapter --npu_option static_memory_policy=2 lets them share the memory of the "
        f"largest.{fitting if 'single steps' in further else ''} A smaller --batch_size makes room.",
    ]


def _shares_memory(config: Config) -> bool:
    # 2 and 4 are for static shapes, 1 counts as 2: hicann/tensorflow, session_config/memory_management.md.
    options = dict(option.partition("=")[::2] for option in config.ascend.npu_option)
    return options.get("static_memory_policy") in ("1", "2", "4")


def _bytes(tensor: Any, config: Config) -> int:
    if tensor.dtype in (tf.resource, tf.variant, tf.string):
        return 0
    size = 2 if tensor.dtype.is_floating and _is_half(config) else tensor.dtype.size
    return int(tensor.shape.num_elements() or 0) * size


def _is_half(config: Config) -> bool:
    return npu_flags.precision(config) not in option_keys.ORIGINAL
