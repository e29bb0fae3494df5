"""The plan of an NPU run, without an NPU and without the adapter: `--dry_run`.

The graph is built by the code that a run builds it with, except that gradient exchange and overflow
status, which only the adapter can build, are left out.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from typing import Any, Callable, List, Mapping, NamedTuple, Tuple

from densenet_keras import backends, schedule
from densenet_keras.backends.ascend import adapter, loop_plan
from densenet_keras.backends.ascend import flags as npu_flags
from densenet_keras.backends.ascend import options as npu_options
from densenet_keras.data import records
from densenet_keras.errors import EXIT_DONE, EXIT_USAGE, RunError, UsageError
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology

# Where there is no data to count: ImageNet-1k (ILSVRC 2012).
_IMAGENET = (1281167, 50000)

_GIB = 1024.0**3


def run(config: Config, environ: Mapping[str, str]) -> int:
    """Prints session options, environments, loop length, graph check and memory of a resolved command.

    Returns:
        Exit code: 0, or 2 if a part of the plan would fail; every part is printed all the same.
    """
    sections: List[Tuple[str, Callable[[], List[str]]]] = [
        ("session options", lambda: _options(config)),
        ("environment of the ranks", lambda: _environments(config, environ)),
        ("steps", lambda: _steps(config)),
        ("graph and device memory", lambda: _graph(config)),
        ("notes", lambda: npu_flags.notes(config) or ["none"]),
    ]
    code = EXIT_DONE
    for title, make in sections:
        print(f"== {title}", flush=True)
        try:
            lines = make()
        except (UsageError, RunError) as error:
            lines = [f"error: {error}"]
            code = EXIT_USAGE
        print("\n".join(lines), flush=True)
    return code


def _options(config: Config) -> List[str]:
    npu_flags.validate(config)
    length = loop_plan.choose(_plan(config), 0).length if config.trains else 1
    options = npu_options.session_options(config, 0, length)
    lines = [f"{key} ({field}) = {value}" for key, (field, value) in options.items()]
    if config.device.rank_size > 1 and any("rank_0" in str(value) for _, value in options.values()):
        lines.append("folders of the other ranks end in their own number")
    split = npu_flags.gradient_split(config)
    scale = npu_flags.loss_scale(config)
    lines.append(f"loss scale: {scale.kind}" + (f" {scale.value:g}" if scale.kind == "fixed" else ""))
    lines.append(f"gradient split: {split.kind} {split.values}" if split else "gradient split: by default")
    return lines


def _environments(config: Config, environ: Mapping[str, str]) -> List[str]:
    lines = []
    for number, additions in enumerate(backends.rank_environments(config, environ) or []):
        rank = additions.get("RANK_ID", environ.get("RANK_ID", str(number)))
        values = " ".join(f"{name}={value}" for name, value in sorted(additions.items()))
        lines.append(f"rank {rank}: {values}")
    return lines


def _steps(config: Config) -> List[str]:
    if not config.trains:
        return ["no training: one batch in each session.run"]
    plan = _plan(config)
    chosen = loop_plan.choose(plan, 0)
    chunks = Counter(end - start for start, end in plan.chunks(0))
    commonest = chunks.most_common(5)
    cut = ", ".join(f"{number} of {length} steps" for length, number in commonest)
    if len(chunks) > len(commonest):
        cut += f", {sum(chunks.values()) - sum(number for _, number in commonest)} of other lengths"
    return [
        f"{plan.train_images} images, global batch {plan.global_batch}: {plan.steps_per_epoch} steps an "
        f"epoch, {plan.total_steps} steps in all",
        loop_plan.explain(chosen, plan),
        f"chunks: {cut}",
        f"session runs: {chosen.session_runs}",
    ]


def _graph(config: Config) -> List[str]:
    import tensorflow as tf

    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    topology = Topology(size=config.device.rank_size)
    from densenet_keras.backends.ascend.backend import AscendBackend

    backend = AscendBackend(config, topology, _stand_ins())
    plan = _plan(config)
    if config.trains:
        backend.plan_steps(plan, 0)
    with tf.Graph().as_default() as graph:
        graphs, variables = _build(config, backend, plan)
        for purpose, fetches in graphs:
            backend.check_graph(fetches, purpose)
        memory = estimate_memory(graph, variables, config)
    lines = [
        f"checked: {len(graph.get_operations())} operations, none that the device lacks (without gradient "
        "exchange and overflow status, which the adapter builds)"
    ]
    return lines + _memory_lines(memory)


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


def estimate_memory(graph: Any, model_variables: List[Any], config: Config) -> Memory:
    """Predicts from shapes alone.

    Activations are the tensors that gradient operations read of other operations, each once, at 2 bytes
    a float where mixed precision stores float16. What the compiler needs for workspaces and copies in its
    own layouts comes on top, what it fuses away comes off.
    """
    import tensorflow as tf

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


def _memory_lines(memory: Memory) -> List[str]:
    parts = ", ".join(f"{name} {value / _GIB:.2f}" for name, value in memory._asdict().items())
    lines = [
        f"predicted memory of one device: {memory.total / _GIB:.2f} GiB = {parts}",
        "activations: tensors that the backward pass reads, 2 bytes a float under mixed precision; compiler "
        "workspace comes on top",
    ]
    limit = npu_options.DEVICE_MEMORY_BYTES
    if memory.total > limit:
        raise RunError(
            "\n".join(lines) + f"\nmore than the {limit / _GIB:.0f} GiB of a device: lower --batch_size"
        )
    return lines


def _build(
    config: Config, backend: Any, plan: schedule.RunPlan
) -> Tuple[List[Tuple[str, List[Any]]], List[Any]]:
    """The graph of a run, built as the run builds it.

    Returns:
        Purpose and fetches of each graph that goes to the device, and the model's variables.
    """
    from densenet_keras.commands.evaluate import build_evaluation
    from densenet_keras.commands.train import build_training
    from densenet_keras.data.inputs import Inputs
    from densenet_keras.training.callbacks import CosineLearningRate

    # What feeds the iterator stays on the host, so any images do.
    inputs = Inputs(config.replace(synthetic_data=True), backend.topology, train=True, evaluate=True)
    if not config.trains:
        validation, _, _ = build_evaluation(config, inputs, backend)
        return [("evaluation", list(validation.sums))], list(validation.model.weights)
    rate = CosineLearningRate(config.optimizer, plan.steps_per_epoch)
    nodes = build_training(config, plan, 0, inputs, rate, backend)
    graphs = [("training", [nodes.step.train_op, *nodes.step.metrics.values()])]
    if nodes.validation is not None:
        graphs.append(("evaluation", list(nodes.validation.sums)))
    return graphs, list(nodes.model.weights)


def _stand_ins() -> adapter.Adapter:
    """The adapter's parts as far as plain TensorFlow has them."""
    import tensorflow as tf

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


def _plan(config: Config) -> schedule.RunPlan:
    sizes = _IMAGENET
    if not config.data.synthetic_data and os.path.isdir(config.data.data_dir):
        train = len(records.open_split(config.data.data_dir, records.TRAIN)) if config.trains else 0
        evaluates = config.run.mode != "train"
        validation = len(records.open_split(config.data.data_dir, records.VALIDATION)) if evaluates else 0
        sizes = (train, validation)
    return schedule.plan(config, *sizes)
