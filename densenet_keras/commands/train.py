"""Training, fine-tuning, going on with a run: put together in one function, read from top to bottom."""

from __future__ import annotations

import dataclasses
import functools
import os
import shlex
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf

from densenet_keras import backends, files, schedule
from densenet_keras.backends.base import Backend, Step
from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import run_folder, saver
from densenet_keras.commands import advice, in_python, origin
from densenet_keras.data import classes
from densenet_keras.data.inputs import Inputs, naming_bad_records
from densenet_keras.data.order import Stream
from densenet_keras.network.densenet import build_densenet
from densenet_keras.network.variants import VARIANTS
from densenet_keras.rank import Rank
from densenet_keras.schedule import RunPlan
from densenet_keras.settings.config import Config, fields
from densenet_keras.settings.rules import counted
from densenet_keras.training import agreement, loop, recovery, statistics, steps, user_callbacks
from densenet_keras.training.callbacks import (
    CheckpointSaver,
    Console,
    CosineLearningRate,
    Evaluate,
    KeepBest,
    ProgressBar,
    Summary,
    TensorBoard,
    Throughput,
    metrics,
)
from densenet_keras.training.evaluation import Validation


def train(
    config: Config,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    rank: Optional[Rank] = None,
) -> int:
    """Trains, or fine-tunes from a checkpoint, or continues the run in log_dir.

    Args:
        config: resolved, as `densenet_keras.parse` returns it.
        callbacks: the user's own Keras callbacks, the same on every rank.
        rank: which process this is, of a command that has checked the configuration and holds log_dir; by
            default this process is the only rank, and both are done here.

    Returns:
        The global step reached.

    Raises:
        UsageError: something that the command would have refused.
    """
    if rank is not None:
        return _train(config, callbacks, rank)
    with in_python.training(config):
        named = user_callbacks.load(config.run.callbacks) if config.run.callbacks else []
        return _train(config, [*named, *callbacks], Rank.alone(config))


def _train(config: Config, callbacks: Sequence[tf.keras.callbacks.Callback], rank: Rank) -> int:
    topology = rank.topology
    user_callbacks.check(callbacks, "callbacks")
    inputs = Inputs(config, topology, train=True, evaluate=config.run.mode == "train_and_evaluate")
    plan = schedule.plan(config, inputs.train_images, inputs.eval_images)
    start = origin.find(config, plan)
    if start.step >= plan.total_steps and not start.missed_evaluation:
        if topology.is_primary:
            print(
                f"{config.run.log_dir} already holds step {start.step} of {plan.total_steps}: nothing to "
                "train. Raise --max_epochs or --max_train_steps to go on, or choose another --log_dir."
            )
        return start.step

    backend = backends.create(config, topology)
    backend.plan_steps(plan, start.step)
    rate = CosineLearningRate(config.optimizer, plan.steps_per_epoch)
    graph = tf.Graph()
    with graph.as_default(), backend.placement():
        nodes = build_training(config, plan, origin.stream(start), inputs, rate, backend)
    compile_seconds = float(config.device.first_step_timeout_seconds)
    with backend.session(graph) as session:
        with rank.watchdog.phase("preparing", compile_seconds):
            # What cannot run is said before anything compiles.
            backend.check_graph([nodes.step.train_op, *nodes.step.metrics.values()], "training")
            # Variables first, iterators in runs of their own: a device keeps what one run initialises.
            session.run(nodes.initialise)
            session.run(nodes.batches.initializer)
            if nodes.validation is not None:
                backend.check_graph(list(nodes.validation.sums), "evaluation")
                session.run(nodes.validation.iterator.initializer)
            if nodes.average is not None:
                backend.check_graph([nodes.average], "averaging statistics")
            begun = origin.restore(session, nodes.saver, nodes.model, config, start)
            if topology.size > 1:
                session.run(nodes.synchronise)
                found = [start.step, int(start.missed_evaluation)]
                agreement.check_same_on_all_ranks(session, nodes.host_sum, rank, found, config.run.log_dir)
            with backend.placement():
                own = user_callbacks.prepare(callbacks, nodes.model, topology.is_primary)
            # The loop of steps last: it takes the variables as they are now.
            backend.prepare_steps(session, nodes.step, plan, start.step)
            graph.finalize()
        if topology.is_primary:
            _write_run(config, plan, start, inputs.class_names())
        parts = recovery.Parts(session, backend, plan, *nodes.repeated)
        describe = functools.partial(inputs.describe_batch, nodes.stream)
        recovering = recovery.Recovery(parts, rank, config, describe, start.step)
        work = loop.Run(session, backend, nodes.model, nodes.step, plan, start.step, recovering)
        ours = _callbacks(config, work, nodes, rank, start, _headline(config, plan, begun))
        with naming_bad_records():
            return loop.run(
                work,
                [rate, *ours, *own],
                rank,
                agree=agreement.summing(nodes.host_sum, session, "requests"),
                first_step_timeout_seconds=compile_seconds,
            )


class Training(NamedTuple):
    """The nodes of a training graph that the host runs."""

    inputs: Inputs
    model: tf.keras.Model
    step: Step
    batches: Any  # the iterator over training batches
    stream: Stream  # which it follows
    validation: Optional[Validation]
    host_sum: agreement.HostSum
    average: Optional[tf.Operation]  # to be run before saving, see `statistics`
    saver: saver.Saver
    synchronise: tf.Operation  # gives all ranks rank 0's variables
    initialise: List[tf.Operation]

    @property
    def repeated(self) -> Tuple[Any, ...]:
        """What of `recovery.Parts` these nodes are."""
        return self.model, self.step, self.stream, self.batches.initializer, self.saver, self.host_sum


@tf.autograph.experimental.do_not_convert  # nothing needs it, and it takes a third of a start
def build_training(
    config: Config,
    plan: RunPlan,
    stream: Stream,
    inputs: Inputs,
    rate: CosineLearningRate,
    backend: Backend,
) -> Training:
    """Everything that a training session runs, in the default graph.

    Args:
        stream: where the batches start.
    """
    tf.compat.v1.set_random_seed(config.data.seed)
    tf.keras.backend.set_learning_phase(1)
    # A constant: on an NPU a fed value is one more thing that ranks could differ in.
    start_step = tf.constant(stream.first_step, tf.int64)
    if backend.repeats_steps:
        start_step = tf.numpy_function(lambda: np.int64(stream.first_step), [], tf.int64)
        start_step.set_shape([])
    batches = tf.compat.v1.data.make_initializable_iterator(inputs.train_dataset(start_step, stream))
    model, step = steps.build_train_step(
        lambda images: build_densenet(
            config.model,
            images,
            seed=config.data.seed,
            frozen=VARIANTS[config.model.model].frozen_parts(config.finetune.freeze),
            keep_statistics=config.finetune.bn_statistics == "keep",
            rearranged=backend.rearranges,
            recompute=config.device.recompute,
        ),
        backend.measure_get_next(batches),
        config,
        rate.tensor,
        backend,
    )
    host_sum = agreement.host_sum(backend)
    validation = None
    if plan.eval_interval_steps:
        validation = Validation(config, inputs, backend, host_sum, model)
    # Every variable, so that a continued run goes on exactly: momentum and the backend's own included.
    variables = tf.compat.v1.global_variables()
    return Training(
        inputs=inputs,
        model=model,
        step=step,
        batches=batches,
        stream=stream,
        validation=validation,
        host_sum=host_sum,
        average=statistics.before_saving(model, config, backend),
        saver=saver.Saver(
            {variable.op.name: variable for variable in variables},
            config.run.log_dir,
            config.run.keep_checkpoint_max,
            optional=[variable.op.name for variable in backend.optional_variables],
            about=_describing(config, plan, inputs, stream),
        ),
        synchronise=backend.broadcast(variables),
        initialise=initialisers(),
    )


def _describing(
    config: Config, plan: RunPlan, inputs: Inputs, stream: Stream
) -> Callable[[int], Dict[str, Any]]:
    """What the manifest of the checkpoint of a step says beside its files."""

    def about(step: int) -> Dict[str, Any]:
        return {
            "epoch": plan.epoch(step),
            "data": {
                "next_image": step * plan.global_batch + stream.skipped_images,
                "skipped_images": stream.skipped_images,
                "rewinds": stream.rewinds,
            },
            "configuration": config.to_json(),
            "plan": dataclasses.asdict(plan),
            "class_names": inputs.class_names(),
        }

    return about


def initialisers() -> List[tf.Operation]:
    """What gives all variables of the default graph their first values."""
    return [tf.compat.v1.global_variables_initializer(), tf.compat.v1.local_variables_initializer()]


def _callbacks(
    config: Config, work: loop.Run, nodes: Training, rank: Rank, start: origin.Start, headline: str
) -> List[tf.keras.callbacks.Callback]:
    """The callbacks of a run, in the order that `callbacks` gives the reasons for."""
    primary, plan = rank.topology.is_primary, work.plan
    log_dir = config.run.log_dir
    ordered: List[Any] = [Throughput(plan)]
    reports = []
    tensorboard: Optional[TensorBoard] = None
    if primary:
        console = Console(log_dir, config.run.log_name, nodes.inputs.bad_record_news)
        said = [f"note: {note}" for note in advice.notes(config, plan, start.step)]
        for line in (headline, _device(config, work.backend), *work.backend.notes(), *said):
            console.write(line)
        metrics_file = metrics.Metrics(log_dir, start.step)
        shown = {name: config.get(name) for name in fields()}
        tensorboard = TensorBoard(log_dir, start.step, work.session.graph, shown)
        ordered += [console, metrics_file, tensorboard, ProgressBar(plan, start.step, rank.is_watched)]
        past = metrics.top1_by_step(log_dir)
        summary = Summary(plan, console.write, log_dir, _continuing(config), past)
        best = KeepBest(
            log_dir, start.step, config.run.keep_best, config.run.patience_evals, say=console.write
        )
        ordered.append(best)
        watching = (console, metrics_file, tensorboard, summary, best)
        reports = [each.evaluation for each in watching]
    ordered.append(CheckpointSaver(plan, _saving(config, work, nodes, rank, tensorboard)))
    if nodes.validation is not None:
        evaluate = functools.partial(nodes.validation.run, work.session, rank=rank)
        missed_step = start.step if start.missed_evaluation else None
        ordered.append(Evaluate(plan, evaluate, reports, missed_step=missed_step))
    return [*ordered, summary] if primary else ordered


def _saving(
    config: Config, work: loop.Run, nodes: Training, rank: Rank, tensorboard: Optional[TensorBoard]
) -> Callable[[int], None]:
    """What saves the state of a step."""
    assert work.recovery is not None
    save_state = work.recovery.save

    def save(step: int) -> None:
        if tensorboard is not None:
            tensorboard.flush()
        if nodes.average is not None:  # compiled at the first save
            with rank.watchdog.phase("averaging statistics", float(config.device.first_step_timeout_seconds)):
                work.session.run(nodes.average)
        save_state(step)

    return save


def _device(config: Config, backend: Backend) -> str:
    """What runs where, and why nowhere better."""
    why = advice.choice_of_backend(config)
    return f"--backend {backend.name}: {backend.describe_device()}" + (f"; {why}" if why else "")


def _continuing(config: Config) -> str:
    """The command that goes on with the run in `log_dir`: another one would start a run of its own."""
    path = os.path.join(config.run.log_dir, run_folder.RUN_JSON)
    return f"python -m densenet_keras {config.command} --config {shlex.quote(path)}"


def _write_run(
    config: Config, plan: RunPlan, start: origin.Start, class_names: Optional[Sequence[str]]
) -> None:
    """Leaves what explains the run, and sets damaged checkpoints aside, once training goes on."""
    run_folder.write_configuration(config)
    classes.write(config.run.log_dir, class_names, config.data.label_offset)
    files.write_json(os.path.join(config.run.log_dir, schedule.PLAN_FILE), dataclasses.asdict(plan))
    for path, _ in start.resumed.damaged if start.resumed else ():
        checkpoint_files.set_aside(path)


def _headline(config: Config, plan: RunPlan, begun: str) -> str:
    return (
        f"{config.model.model}, {config.model.num_classes} classes, {config.model.image_size} px; "
        f"{plan.train_images} training images, {plan.eval_images} for evaluation; "
        f"{counted(config.device.rank_size, 'rank')} x batch {config.data.batch_size}; "
        f"{counted(plan.steps_per_epoch, 'step')} an epoch, {plan.total_steps} in all; {begun}"
    )
