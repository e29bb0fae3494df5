"""The whole plan of a command, without a device and without starting anything: `--dry_run`.

The graph is built by the code that a run builds it with, except what only a device's own library can
build.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from typing import Any, Callable, List, Mapping, Sized, Tuple

from densenet_keras import backends, schedule
from densenet_keras.commands import advice
from densenet_keras.data import records
from densenet_keras.errors import EXIT_DONE, EXIT_USAGE, RunError, UsageError
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology

# Where there is no data to count: ImageNet-1k (ILSVRC 2012).
_IMAGENET = (1281167, 50000)


def run(config: Config, environ: Mapping[str, str]) -> int:
    """Prints session options, environments, steps, graph check and memory of a resolved command.

    Returns:
        Exit code: 0, or 2 if a part of the plan would fail; every part is printed all the same.
    """
    host = backends.host(config)
    plan = functools.partial(_plan, config)
    sections: List[Tuple[str, Callable[[], List[str]]]] = [
        (
            "session options",
            lambda: host.describe_session(config, plan() if config.trains else None, environ),
        ),
        ("environment of the ranks", lambda: _environments(config, environ)),
        ("steps", lambda: _steps(config)),
        ("graph and device memory", lambda: _graph(config)),
        ("notes", lambda: [*host.notes(config), *(advice.notes(config, plan(), 0) if config.trains else [])]),
    ]
    code = EXIT_DONE
    for title, make in sections:
        print(f"== {title}", flush=True)
        try:
            lines = make() or ["none"]
        except (UsageError, RunError) as error:
            lines = [f"error: {error}"]
            code = EXIT_USAGE
        print("\n".join(lines), flush=True)
    return code


def _environments(config: Config, environ: Mapping[str, str]) -> List[str]:
    lines = []
    for number, additions in enumerate(backends.host(config).rank_environments(config, environ) or []):
        rank = additions.get("RANK_ID", environ.get("RANK_ID", str(number)))
        values = " ".join(f"{name}={value}" for name, value in sorted(additions.items()))
        lines.append(f"rank {rank}: {values}")
    return lines


def _steps(config: Config) -> List[str]:
    if not config.trains:
        return ["no training: one batch in each session.run"]
    plan = _plan(config)
    chunks = Counter(end - start for start, end in plan.chunks(0))
    commonest = chunks.most_common(5)
    cut = ", ".join(f"{number} of {length} steps" for length, number in commonest)
    if len(chunks) > len(commonest):
        cut += f", {sum(chunks.values()) - sum(number for _, number in commonest)} of other lengths"
    return [
        f"{plan.train_images} images, global batch {plan.global_batch}: {plan.steps_per_epoch} steps an "
        f"epoch, {plan.total_steps} steps in all",
        f"chunks: {cut}",
        *backends.host(config).describe_steps(plan),
    ]


def _graph(config: Config) -> List[str]:
    import tensorflow as tf

    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    host = backends.host(config)
    backend = host.create_for_plan(config, Topology(size=config.device.rank_size))
    plan = _plan(config)
    if config.trains:
        backend.plan_steps(plan, 0)
    with tf.Graph().as_default() as graph:
        graphs, variables = _build(config, backend, plan)
        for purpose, fetches in graphs:
            backend.check_graph(fetches, purpose)
        memory = host.describe_memory(graphs, variables, config, plan if config.trains else None)
    return [f"checked: {len(graph.get_operations())} operations, none that the device lacks", *memory]


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
    from densenet_keras.data.order import Stream
    from densenet_keras.training.callbacks import CosineLearningRate

    # What feeds the iterator stays on the host, so any images do.
    inputs = Inputs(config.replace(synthetic_data=True), backend.topology, train=True, evaluate=True)
    if not config.trains:
        validation, _, _ = build_evaluation(config, inputs, backend)
        return [("evaluation", list(validation.sums))], list(validation.model.weights)
    rate = CosineLearningRate(config.optimizer, plan.steps_per_epoch)
    nodes = build_training(config, plan, Stream(0), inputs, rate, backend)
    graphs = [("training", [nodes.step.train_op, *nodes.step.metrics.values()])]
    if nodes.validation is not None:
        graphs.append(("evaluation", list(nodes.validation.sums)))
    if nodes.average is not None:
        graphs.append(("averaging statistics", [nodes.average]))
    return graphs, list(nodes.model.weights)


def _plan(config: Config) -> schedule.RunPlan:
    sizes = _IMAGENET
    if not config.data.synthetic_data and os.path.isdir(config.data.data_dir):
        data, policy = config.data, records.Policy.of(config)
        split: Sized = ()
        if config.trains:
            split = records.open_split(data.data_dir, records.TRAIN, shards=data.shards, policy=policy)
        validation: Sized = ()
        if config.run.mode != "train":
            validation = records.open_split(data.data_dir, records.VALIDATION, policy=policy)
        sizes = (len(split), len(validation))
    return schedule.plan(config, *sizes)
