"""Evaluation of the checkpoints that are there: where everything is put together."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from typing import List, NamedTuple, Optional, Tuple

import tensorflow as tf

from densenet_keras import backends, files
from densenet_keras.backends.base import Backend
from densenet_keras.checkpoints import reader, run_folder, saver
from densenet_keras.commands import in_python
from densenet_keras.commands.train import initialisers
from densenet_keras.data import classes
from densenet_keras.data.inputs import Inputs
from densenet_keras.errors import RunError
from densenet_keras.rank import Rank
from densenet_keras.schedule import PLAN_FILE, RunPlan
from densenet_keras.settings.config import Config
from densenet_keras.training import agreement
from densenet_keras.training.callbacks import Console
from densenet_keras.training.callbacks.evaluation import format_utc
from densenet_keras.training.evaluation import Validation


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
    bad_records: int


def evaluate(config: Config, rank: Optional[Rank] = None) -> List[CheckpointResult]:
    """Evaluates every checkpoint that eval_dir names on one graph; all ranks share the images.

    Args:
        config: resolved, as `densenet_keras.parse` returns it.
        rank: which process this is, of a command that has checked the configuration; by default this process
            is the only rank, and it is checked here.

    Returns:
        A line for each checkpoint, by step; the same on all ranks.

    Raises:
        UsageError: something that the command would have refused.
    """
    if rank is None:
        in_python.check_evaluation(config)
        rank = Rank.alone(config)
    topology = rank.topology
    found = saver.list_checkpoints(config.run.eval_dir)
    inputs = Inputs(config, topology, train=False, evaluate=True)
    backend = backends.create(config, topology)
    graph = tf.Graph()
    with graph.as_default(), backend.placement():
        validation, restorer, initialise = build_evaluation(config, inputs, backend)

    timeout_seconds = float(config.device.first_step_timeout_seconds)
    with backend.session(graph) as session:
        with rank.watchdog.phase("preparing", timeout_seconds):
            backend.check_graph(list(validation.sums), "evaluation")
            session.run(initialise)
            session.run(validation.iterator.initializer)
            graph.finalize()
            if topology.size > 1:
                names = " ".join(os.path.basename(each.path) for each in found)
                here = [len(found), zlib.crc32(names.encode()) % 2**20]
                agreement.check_same_on_all_ranks(
                    session, validation.host_sum, rank, here, config.run.eval_dir
                )
        if topology.is_primary:
            classes.write(config.run.log_dir, inputs.class_names(), config.data.label_offset)
        console = None
        if topology.is_primary:
            console = Console(config.run.log_dir, config.run.log_name, inputs.bad_record_news)
        if console is not None:
            console.write(f"evaluating {len(found)} checkpoints on {inputs.eval_images} images")
        table = _Table(config, rank, session, validation, restorer)
        for each in found:
            table.add(each, console)
            if rank.stop.is_set:
                return table.results
        if console is not None:
            console.write("Finished evaluation")
            console.close()
    if topology.is_primary and config.run.json:
        files.write_report(config.run.json, [result._asdict() for result in table.results])
    table.check()
    return table.results


class _Table:
    """The results so far, and what could not be evaluated; the same on all ranks."""

    def __init__(
        self,
        config: Config,
        rank: Rank,
        session: tf.compat.v1.Session,
        validation: Validation,
        restorer: saver.Saver,
    ) -> None:
        self._config, self._rank = config, rank
        self._session, self._validation, self._restorer = session, validation, restorer
        self.results: List[CheckpointResult] = []
        self._passed_over: List[str] = []
        self._unreadable = 0

    def add(self, checkpoint: saver.Checkpoint, console: Optional[Console]) -> None:
        """Evaluates `checkpoint`; one that a run still going on has deleted meanwhile is passed over."""
        path = checkpoint.path
        step, gone, unreadable = 0, "", ""
        with self._rank.watchdog.phase(
            f"restoring {path}", float(self._config.device.first_step_timeout_seconds)
        ):
            try:
                step = self._restorer.restore(self._session, path)
            except reader.Gone as error:
                gone = str(error)
            except RunError as error:
                unreadable = str(error)
            # One rank may have read what was deleted before another came to it.
            told = {"found": [bool(gone), bool(unreadable)]}
            failed = self._validation.host_sum(self._session, told)["found"].tolist()
        if any(failed):
            reason = unreadable or gone or f"checkpoint {path} could not be read by another rank"
            self._passed_over.append(reason)
            self._unreadable += failed[1] > 0
            if console is not None:
                console.write(f"passed over: {reason}")
            return
        result = self._validation.run(self._session, step, self._rank)
        if result is None:
            return  # a signal
        epoch = _epoch_of(path, step)
        self.results.append(CheckpointResult(path, step, epoch, **result._asdict()))
        if console is not None:
            shown = float("nan") if epoch is None else epoch
            console.evaluation(step, shown, result, format_utc(checkpoint.modified_seconds))

    def check(self) -> None:
        """Raises RunError if a checkpoint could not be read, or none was left."""
        if len(self._passed_over) == 1 and not self.results:
            raise RunError(self._passed_over[0])
        if self._unreadable or not self.results:
            raise RunError(
                f"{len(self._passed_over)} of {len(self._passed_over) + len(self.results)} checkpoints in "
                f"{self._config.run.eval_dir} could not be evaluated, the first: {self._passed_over[0]}"
            )


@tf.autograph.experimental.do_not_convert  # nothing needs it, and it takes a third of a start
def build_evaluation(
    config: Config, inputs: Inputs, backend: Backend
) -> Tuple[Validation, saver.Saver, List[tf.Operation]]:
    """What an evaluation session runs, its initialisers last, in the default graph."""
    tf.keras.backend.set_learning_phase(0)
    validation = Validation(config, inputs, backend, agreement.host_sum(backend))
    global_step = tf.compat.v1.train.get_or_create_global_step()
    variables = {v.op.name: v for v in [*validation.model.weights, global_step]}
    return validation, saver.Saver(variables, config.run.log_dir, keep=0), initialisers()


def _epoch_of(path: str, step: int) -> Optional[float]:
    """Epochs that checkpoint `path` was trained for, by its manifest or the plan beside it."""
    epoch = run_folder.of_checkpoint(path, "epoch")
    if isinstance(epoch, float):
        return epoch
    plan_path = os.path.join(os.path.dirname(path), PLAN_FILE)
    unreadable = contextlib.suppress(OSError, ValueError, RecursionError, TypeError)
    with unreadable, open(plan_path, encoding="utf-8") as file:
        return RunPlan(**json.load(file)).epoch(step)
    return None
