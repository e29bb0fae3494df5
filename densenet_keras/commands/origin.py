"""Where a training run begins: at random weights, at those of another run or program, or where it ended."""

from __future__ import annotations

from typing import NamedTuple, Optional

import tensorflow as tf

from densenet_keras.checkpoints import files, run_folder, saver
from densenet_keras.commands import foreign
from densenet_keras.data.order import Stream
from densenet_keras.network.weights import source as weights
from densenet_keras.network.weights.source import Source
from densenet_keras.schedule import RunPlan
from densenet_keras.settings.config import Config
from densenet_keras.training.callbacks import metrics


class Start(NamedTuple):
    """Where training begins."""

    step: int
    missed_evaluation: bool  # that of `step`: it comes after its checkpoint, a run may end between them
    resumed: Optional[saver.Resumable]


def find(config: Config, plan: RunPlan) -> Start:
    """After the newest whole checkpoint of log_dir, if there is one."""
    resumed = saver.find_resumable(config.run.log_dir)
    step = resumed.step if resumed else 0
    missed = step > 0 and plan.evaluates_at(step) and not metrics.holds_evaluation(config.run.log_dir, step)
    return Start(step, missed, resumed)


def stream(start: Start) -> Stream:
    """Where the stream of training images begins."""
    position = run_folder.of_checkpoint(start.resumed.path, "data") if start.resumed else None
    told = position or {}
    return Stream(start.step, told.get("skipped_images", 0), told.get("rewinds", 0))


def restore(
    session: tf.compat.v1.Session, variables: saver.Saver, model: tf.keras.Model, config: Config, start: Start
) -> str:
    """Gives the variables their first values; returns in words where they come from."""
    resumed = start.resumed
    if resumed:
        variables.restore(session, resumed.path)
        damaged = "".join(
            f"; {path} is damaged ({reason}) and is set aside as {files.SET_ASIDE}*"
            for path, reason in resumed.damaged
        )
        return f"continuing from {resumed.path}{damaged}"
    if not config.run.restore_path:
        return "starting from random weights"
    source = foreign.opened(config.run.restore_path)
    if source is not None:
        return _import(session, variables, model, config, source)
    path = saver.resolve(config.run.restore_path)
    names = [variable.op.name for variable in model.weights]
    report = variables.restore_body(session, path, names, config.run.restore_exclude)
    fresh = ", ".join(report.fresh) or "none"
    return f"loaded {len(report.loaded)} variables from {path}; not loaded, random: {fresh}"


def _import(
    session: tf.compat.v1.Session,
    variables: saver.Saver,
    model: tf.keras.Model,
    config: Config,
    source: Source,
) -> str:
    """As `restore`, from weights of another program."""
    foreign.check_restored(source, config)
    shapes = {variable.op.name: tuple(variable.shape.as_list()) for variable in model.weights}
    excluded = tuple(config.run.restore_exclude)
    found = weights.match(source, {n: shape for n, shape in shapes.items() if not n.startswith(excluded)})
    variables.fill(session, weights.values(source, found))
    fresh = ", ".join(sorted(set(shapes) - set(found.loaded))) or "none"
    there = weights.network_settings(source)["bn_epsilon"]
    note = "" if config.model.bn_epsilon == there else f"; they were trained with --bn_epsilon {there}"
    return (
        f"loaded {len(found.loaded)} variables from {source.path} ({source.layout.name}); not loaded, "
        f"random: {fresh}{note}"
    )
