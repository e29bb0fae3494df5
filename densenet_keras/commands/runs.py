"""Where everything is put together: train, fine-tune and evaluate, each read from top to bottom."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import zlib
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import tensorflow as tf

from densenet_keras import backends, schedule
from densenet_keras.backends.base import Backend, Step
from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import run_folder
from densenet_keras.checkpoints import saver as checkpoint
from densenet_keras.data.inputs import Inputs, naming_bad_records
from densenet_keras.errors import RunError
from densenet_keras.network.densenet import build_densenet
from densenet_keras.schedule import RunPlan
from densenet_keras.settings.config import EVALUATE, Config
from densenet_keras.topology import Topology
from densenet_keras.training import loop, steps, user_callbacks
from densenet_keras.training.callbacks import (
    CheckpointSaver,
    Console,
    CosineLearningRate,
    Evaluate,
    ProgressBar,
    StopOnNonFinite,
    TensorBoard,
    Throughput,
    metrics,
)
from densenet_keras.training.callbacks.evaluation import format_utc
from densenet_keras.training.evaluation import Validation
from densenet_keras.watchdog import StopFlag, Watchdog

PLAN_FILE = "plan.json"


def run(
    config: Config, topology: Topology, stop: StopFlag, watchdog: Watchdog, interactive: bool
) -> None:
    """What one rank does for the command in `config`."""
    if config.command == EVALUATE:
        evaluate(config, topology, watchdog, interactive)
    else:
        callbacks = user_callbacks.load(config.run.callbacks) if config.run.callbacks else []
        train(config, topology, callbacks, stop, watchdog, interactive)


def train(
    config: Config,
    topology: Topology = Topology(),  # noqa: B008  (frozen)
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    stop: Optional[StopFlag] = None,
    watchdog: Optional[Watchdog] = None,
    interactive: bool = False,
) -> int:
    """Trains, or fine-tunes from a checkpoint, or continues the run in log_dir.

    Args:
        config: resolved, as `cli.parse` returns it.
        callbacks: the user's own Keras callbacks, the same on every rank.
        stop: asks to stop after the current chunk.
        watchdog: ends the process if training makes no progress; none by default.
        interactive: whether stderr is a terminal, for the progress bar.

    Returns:
        The global step reached.
    """
    watchdog = watchdog or _patient(config)
    user_callbacks.check(callbacks, "callbacks")
    inputs = Inputs(config, topology, train=True, evaluate=config.run.mode == "train_and_evaluate")
    plan = schedule.plan(config, inputs.train_images, inputs.eval_images)
    resumed = checkpoint.find_resumable(config.run.log_dir)
    first_step = resumed.step if resumed else 0
    # An evaluation comes after its checkpoint, so a run may have ended between them.
    missed = (
        first_step > 0
        and plan.evaluates_at(first_step)
        and not metrics.holds_evaluation(config.run.log_dir, first_step)
    )
    if first_step >= plan.total_steps and not missed:
        if topology.is_primary:
            print(
                f"{config.run.log_dir} already holds step {first_step} of {plan.total_steps}: nothing to "
                "train. Raise --max_epochs or --max_train_steps to go on, or choose another --log_dir."
            )
        return first_step

    backend = backends.create(config, topology)
    backend.plan_steps(plan, first_step)
    rate = CosineLearningRate(config.optimizer, plan.steps_per_epoch)
    graph = tf.Graph()
    with graph.as_default(), backend.placement():
        nodes = build_training(config, plan, first_step, inputs, rate, backend, watchdog, interactive)
    with backend.session(graph) as session:
        with watchdog.phase("preparing", _compile_seconds(config)):
            backend.check_graph([nodes.step.train_op, *nodes.step.metrics.values()], "training")
            session.run(nodes.initialise)
            session.run(nodes.batches.initializer)
            if nodes.validation is not None:
                backend.check_graph(list(nodes.validation.sums), "evaluation")
                session.run(nodes.validation.iterator.initializer)
            origin = _restore(session, nodes, config, resumed)
            if topology.size > 1:
                session.run(nodes.synchronise)
                here = [first_step, int(missed)]
                _check_same_on_all_ranks(session, nodes.host_sum, topology, here, config.run.log_dir)
            with backend.placement():
                own = user_callbacks.prepare(callbacks, nodes.model, topology.is_primary)
            backend.prepare_steps(session, nodes.step, plan, first_step)
            graph.finalize()
        if topology.is_primary:
            run_folder.write_configuration(config)
            _write_json(os.path.join(config.run.log_dir, PLAN_FILE), dataclasses.asdict(plan))
            for path, _ in resumed.damaged if resumed else ():
                checkpoint_files.set_aside(path)
        headline = _headline(config, plan, origin)
        ours = _callbacks(session, nodes, backend, plan, first_step, missed, headline, watchdog, interactive)
        with naming_bad_records():
            return loop.run(
                session=session,
                backend=backend,
                step=nodes.step,
                plan=plan,
                first_step=first_step,
                model=nodes.model,
                callbacks=[rate, *ours, *own],
                stop=stop or StopFlag(),
                agree=lambda request: int(nodes.host_sum(session, [request, 0, 0], [0.0])[0][0]),
                watchdog=watchdog,
                first_step_timeout_seconds=_compile_seconds(config),
            )


class Training(NamedTuple):
    """The nodes of a training graph that the host runs."""

    model: tf.keras.Model
    step: Step
    batches: Any  # the iterator over training batches
    validation: Optional[Validation]
    host_sum: steps.HostSum
    saver: checkpoint.Saver
    synchronise: tf.Operation  # gives all ranks rank 0's variables
    initialise: List[tf.Operation]


def build_training(
    config: Config,
    plan: RunPlan,
    first_step: int,
    inputs: Inputs,
    rate: CosineLearningRate,
    backend: Backend,
    watchdog: Watchdog,
    interactive: bool,
) -> Training:
    """Everything that a training session runs, in the default graph.

    Args:
        first_step: global step at which the batches start.
    """
    tf.compat.v1.set_random_seed(config.data.seed)
    tf.keras.backend.set_learning_phase(1)
    # A constant: on an NPU a fed value is one more thing that ranks could differ in.
    start_step = tf.constant(first_step, tf.int64)
    batches = tf.compat.v1.data.make_initializable_iterator(inputs.train_dataset(start_step))
    model, step = steps.build_train_step(
        lambda images: build_densenet(config.model, images, seed=config.data.seed),
        backend.measure_get_next(batches),
        config,
        rate.tensor,
        backend,
    )
    host_sum = steps.HostSum(backend, integers=3, floats=1)
    validation = None
    if plan.eval_interval_steps:
        validation = Validation(model, inputs, host_sum, backend, watchdog, interactive)
    # Every variable, so that a continued run goes on exactly: momentum and the backend's own included.
    variables = tf.compat.v1.global_variables()
    return Training(
        model=model,
        step=step,
        batches=batches,
        validation=validation,
        host_sum=host_sum,
        saver=checkpoint.Saver(
            {variable.op.name: variable for variable in variables},
            config.run.log_dir,
            config.run.keep_checkpoint_max,
            optional=[variable.op.name for variable in backend.optional_variables],
        ),
        synchronise=backend.broadcast(variables),
        initialise=[tf.compat.v1.global_variables_initializer(), tf.compat.v1.local_variables_initializer()],
    )


def _callbacks(
    session: tf.compat.v1.Session,
    nodes: Training,
    backend: Backend,
    plan: RunPlan,
    first_step: int,
    missed: bool,
    headline: str,
    watchdog: Watchdog,
    interactive: bool,
) -> List[tf.keras.callbacks.Callback]:
    """The callbacks of a run, in the order that `callbacks` gives the reasons for."""
    config, primary = backend.config, backend.topology.is_primary
    timeout_seconds = _compile_seconds(config)

    def save(step: int) -> None:
        with watchdog.phase(f"saving the checkpoint of step {step}", timeout_seconds):
            nodes.saver.save(session, step, primary)

    ordered: List[Any] = [StopOnNonFinite(), Throughput(plan)]
    reports = []
    if primary:
        console = Console(config.run.log_dir, config.run.log_name)
        for line in (headline, *backend.notes()):
            console.write(line)
        metrics_file = metrics.Metrics(config.run.log_dir, first_step)
        tensorboard = TensorBoard(config.run.log_dir, first_step)
        ordered += [console, metrics_file, tensorboard, ProgressBar(plan, first_step, interactive)]
        reports = [console.evaluation, metrics_file.evaluation, tensorboard.evaluation]
    ordered.append(CheckpointSaver(plan, save))
    if nodes.validation is not None:
        run = functools.partial(nodes.validation.run, session)
        ordered.append(Evaluate(plan, run, reports, missed_step=first_step if missed else None))
    return ordered


class CheckpointResult(NamedTuple):
    """One line of the evaluation table."""

    checkpoint: str
    step: int
    epoch: Optional[float]  # None where the run folder does not tell how long an epoch was
    top1: float  # percent
    top5: float  # percent
    loss: float
    images: int
    seconds: float


def evaluate(
    config: Config,
    topology: Topology = Topology(),  # noqa: B008  (frozen)
    watchdog: Optional[Watchdog] = None,
    interactive: bool = False,
) -> List[CheckpointResult]:
    """Evaluates every checkpoint that eval_dir names on one graph; all ranks share the images.

    Args:
        config: resolved, as `cli.parse` returns it.

    Returns:
        A line for each checkpoint, by step; the same on all ranks.
    """
    watchdog = watchdog or _patient(config)
    found = checkpoint.list_checkpoints(config.run.eval_dir)
    inputs = Inputs(config, topology, train=False, evaluate=True)
    backend = backends.create(config, topology)
    graph = tf.Graph()
    with graph.as_default(), backend.placement():
        validation, saver, initialise = build_evaluation(config, inputs, backend, watchdog, interactive)

    results = []
    with backend.session(graph) as session:
        with watchdog.phase("preparing", _compile_seconds(config)):
            backend.check_graph(list(validation.sums), "evaluation")
            session.run(initialise)
            session.run(validation.iterator.initializer)
            graph.finalize()
            if topology.size > 1:
                names = " ".join(os.path.basename(each.path) for each in found)
                here = [len(found), zlib.crc32(names.encode()) % 2**20]
                _check_same_on_all_ranks(session, validation.host_sum, topology, here, config.run.eval_dir)
        console = Console(config.run.log_dir, config.run.log_name) if topology.is_primary else None
        if console is not None:
            console.write(f"evaluating {len(found)} checkpoints on {inputs.eval_images} images")
        for each in found:
            with watchdog.phase(f"restoring {each.path}", _compile_seconds(config)):
                step = saver.restore(session, each.path)
            result = validation.run(session, step)
            epoch = _epoch_of(each.path, step)
            results.append(CheckpointResult(each.path, step, epoch, **result._asdict()))
            if console is not None:
                shown = float("nan") if epoch is None else epoch
                console.evaluation(step, shown, result, format_utc(each.modified_seconds))
        if console is not None:
            console.write("Finished evaluation")
            console.close()
    if topology.is_primary and config.run.json:
        _write_json(config.run.json, [result._asdict() for result in results])
    return results


def build_evaluation(
    config: Config, inputs: Inputs, backend: Backend, watchdog: Watchdog, interactive: bool
) -> Tuple[Validation, checkpoint.Saver, List[tf.Operation]]:
    """What an evaluation session runs, its initialisers last, in the default graph."""
    tf.keras.backend.set_learning_phase(0)
    host_sum = steps.HostSum(backend, integers=3, floats=1)
    validation = Validation(None, inputs, host_sum, backend, watchdog, interactive)
    global_step = tf.compat.v1.train.get_or_create_global_step()
    variables = {v.op.name: v for v in [*validation.model.weights, global_step]}
    saver = checkpoint.Saver(variables, config.run.log_dir, keep=0)
    return validation, saver, [
        tf.compat.v1.global_variables_initializer(),
        tf.compat.v1.local_variables_initializer(),
    ]


def _restore(
    session: tf.compat.v1.Session, nodes: Training, config: Config, resumed: Optional[checkpoint.Resumable]
) -> str:
    """Gives the variables their first values; returns in words where they come from."""
    if resumed:
        nodes.saver.restore(session, resumed.path)
        damaged = "".join(
            f"; {path} is damaged ({reason}) and is set aside as {checkpoint_files.SET_ASIDE}*"
            for path, reason in resumed.damaged
        )
        return f"continuing from {resumed.path}{damaged}"
    if not config.run.restore_path:
        return "starting from random weights"
    path = checkpoint.resolve(config.run.restore_path)
    names = [variable.op.name for variable in nodes.model.weights]
    report = nodes.saver.restore_body(session, path, names, config.run.restore_exclude)
    fresh = ", ".join(report.fresh) or "none"
    return f"loaded {len(report.loaded)} variables from {path}; not loaded, random: {fresh}"


def _check_same_on_all_ranks(
    session: tf.compat.v1.Session,
    host_sum: steps.HostSum,
    topology: Topology,
    what: Sequence[int],
    folder: str,
) -> None:
    """Refuses to go on if ranks found different checkpoints, before they wait for each other for good.

    Args:
        what: two integers that tell what this rank found in `folder`; their sums must fit int32.
    """
    sums = host_sum(session, [*what, 0], [0.0])[0][:2].tolist()
    if sums != [topology.size * value for value in what]:
        raise RunError(
            f"rank {topology.rank} found other checkpoints in {folder} than other ranks; all ranks must see "
            "the same: put the folder on a file system that all share, and let nothing write to it meanwhile"
        )


def _headline(config: Config, plan: RunPlan, origin: str) -> str:
    return (
        f"{config.model.model}, {config.model.num_classes} classes, {config.model.image_size} px; "
        f"{plan.train_images} training images, {plan.eval_images} for evaluation; "
        f"{config.device.rank_size} ranks x batch {config.data.batch_size}; "
        f"{plan.steps_per_epoch} steps an epoch, {plan.total_steps} in all; {origin}"
    )


def _epoch_of(path: str, step: int) -> Optional[float]:
    """Epochs that the run which wrote checkpoint `path` had trained, by the plan beside it."""
    plan_path = os.path.join(os.path.dirname(path), PLAN_FILE)
    with contextlib.suppress(OSError, ValueError, TypeError), open(plan_path, encoding="utf-8") as file:
        return RunPlan(**json.load(file)).epoch(step)
    return None


def _write_json(path: str, values: Any) -> None:
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(values, file, indent=2)
        file.write("\n")
    os.replace(path + ".new", path)


def _compile_seconds(config: Config) -> float:
    return float(config.device.first_step_timeout_seconds)


def _patient(config: Config) -> Watchdog:
    """A watchdog that has not been started: it keeps times and ends nothing."""
    return Watchdog(config.device.first_step_timeout_seconds, config.device.step_timeout_seconds)
