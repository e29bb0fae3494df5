"""The contract between the trainer and one rank's accelerator.

Every method is called by all ranks in the same order with the same shapes. Adding hardware means
adding one module with one subclass, and its name in `backends.create`.
"""

from __future__ import annotations

import abc
import contextlib
from typing import Any, ContextManager, Dict, List, NamedTuple, Sequence

import tensorflow as tf

from densenet_keras.schedule import RunPlan
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology


class Step(NamedTuple):
    """One training step in the graph.

    Attributes:
        train_op: operation; one update of every variable, moving averages and global step included.
        metrics: name to float32 scalar, equal on all ranks; read in the run of the step itself.
    """

    train_op: tf.Operation
    metrics: Dict[str, tf.Tensor]


class ChunkResult(NamedTuple):
    """What `run_steps` brings back."""

    metrics: Dict[str, float]  # of the last step
    data_wait_seconds: float  # of timed steps; NaN where the device takes its data by itself
    untimed_steps: int = 0  # steps made by first runs of a graph, which compile it
    untimed_seconds: float = 0.0  # that those took


class Backend(abc.ABC):
    """One rank's accelerator and its link to the other ranks."""

    name: str

    def __init__(self, config: Config, topology: Topology) -> None:
        self.config = config
        self.topology = topology

    @abc.abstractmethod
    def placement(self) -> ContextManager[None]:
        """Wraps the construction of the whole graph, the input pipeline included."""

    def plan_steps(self, plan: RunPlan, first_step: int) -> None:  # noqa: B027  (most need nothing)
        """Called once before `session` by commands that train: what the session will be asked to run."""

    def notes(self) -> List[str]:
        """What the log should say of how this backend will run, a sentence each; after `plan_steps`."""
        return []

    @property
    def optional_variables(self) -> List[tf.Variable]:
        """Global variables that only this backend has.

        Checkpoints hold them; one written elsewhere lacks them, and they then keep their initial values.
        """
        return []

    def check_graph(self, fetches: Sequence[Any], purpose: str) -> None:  # noqa: B027  (likewise)
        """Raises RunError if the device cannot run a graph that fetches these nodes, before it compiles.

        Args:
            fetches: operations and tensors.
            purpose: what the graph is for, as in "evaluation"; for the message.
        """

    @abc.abstractmethod
    def session(self, graph: tf.Graph) -> ContextManager[tf.compat.v1.Session]:
        """A session on `graph`, the device system up before the body and down after it.

        The graph must not be final yet.
        """

    @abc.abstractmethod
    def all_reduce_sum(self, tensors: Sequence[tf.Tensor]) -> List[tf.Tensor]:
        """Sums over ranks, element by element; float32 or int32, same static shapes, same order.

        Bit-equal on all ranks.
        """

    def all_reduce_mean(self, tensors: Sequence[tf.Tensor]) -> List[tf.Tensor]:
        """Means over ranks of float32 tensors."""
        if self.topology.size == 1:
            return [tf.identity(tensor) for tensor in tensors]
        return [total / self.topology.size for total in self.all_reduce_sum(tensors)]

    @abc.abstractmethod
    def broadcast(self, variables: Sequence[tf.Variable]) -> tf.Operation:
        """Assigns rank 0's values of the float variables on every rank; others are left alone."""

    @abc.abstractmethod
    def build_step(
        self,
        optimizer: tf.compat.v1.train.Optimizer,
        losses: Dict[str, tf.Tensor],
        minimize: str,
        variables: Sequence[tf.Variable],
        global_step: tf.Variable,
        updates: Sequence[tf.Operation],
        metrics: Dict[str, tf.Tensor],
    ) -> Step:
        """Gradients of losses[minimize], averaged over ranks, applied once.

        Args:
            losses: float32 scalars of the local batch; averaged over ranks for the metrics.
            minimize: the key of the loss to differentiate.
            variables: trainable variables.
            global_step: advanced by one with each update.
            updates: moving-average updates that belong to the step.
            metrics: further scalars, already equal on all ranks (the learning rate); their values in a
                run of the step are those before its update.

        Raises:
            ValueError: naming the variables that the loss does not depend on.
        """

    def full_precision(self) -> ContextManager[None]:
        """Wraps graph construction that must stay float32 under mixed precision."""
        return contextlib.nullcontext()

    def measure_get_next(self, iterator: Any) -> Any:
        """`iterator.get_next()`, timed if the backend can tell how long the step waits for it."""
        return iterator.get_next()

    def prepare_steps(  # noqa: B027  most backends need nothing here
        self, session: tf.compat.v1.Session, step: Step, plan: RunPlan, first_step: int
    ) -> None:
        """Called once, after variables and iterators are initialised and before the graph is final."""

    @abc.abstractmethod
    def run_steps(self, session: tf.compat.v1.Session, step: Step, count: int) -> ChunkResult:
        """Advances exactly `count` steps, one at least.

        The weights after a number of steps do not depend on how they were cut into calls.
        """

    def extra_metrics(self, metrics: Dict[str, float]) -> Dict[str, float]:
        """What the backend adds to a log line, such as skipped steps; may raise RunError."""
        return {}
