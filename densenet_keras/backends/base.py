"""The contract between the trainer and one rank's accelerator.

Every method is called by all ranks in the same order with the same shapes. Adding hardware means
adding one module with one subclass, and its name in `backends.create`.
"""

from __future__ import annotations

import abc
import contextlib
from typing import Any, Callable, ContextManager, Dict, List, NamedTuple, Optional, Sequence, Tuple

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
    stopped_after: Optional[int] = None  # steps done, where `pulse` asked to stop before all were


def go_on() -> bool:
    """A `pulse` that never asks to stop."""
    return False


def _unannounced(what: str) -> ContextManager[None]:
    return contextlib.nullcontext()


class Backend(abc.ABC):
    """One rank's accelerator and its link to the other ranks.

    Attributes:
        compiles_graphs: whether the first run of a graph takes minutes.
        rearranges: whether networks take forms that are equal to rounding and that a CPU computes in less
            time: shared statistics in training, folded normalisation in inference.
        compiling: entered for the first run of a graph, with what it is for; `run_steps` does so itself.
        repeats_steps: whether the stream can be begun anew and steps be run again, one by one.
    """

    name: str
    compiles_graphs = False
    rearranges = False
    repeats_steps = False

    def __init__(self, config: Config, topology: Topology) -> None:
        self.config = config
        self.topology = topology
        self.compiling: Callable[[str], ContextManager[None]] = _unannounced

    @abc.abstractmethod
    def placement(self) -> ContextManager[None]:
        """Wraps the construction of the whole graph, the input pipeline included."""

    def plan_steps(self, plan: RunPlan, first_step: int) -> None:  # noqa: B027  (most need nothing)
        """Called once before `session` by commands that train: what the session will be asked to run."""

    def notes(self) -> List[str]:
        """What the log should say of how this backend will run, a sentence each; after `plan_steps`."""
        return []

    def describe_device(self) -> str:
        """In words: what this rank computes on, with how many threads, at which precision."""
        return f"{self.config.data.data_threads} data threads"

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
            return [tf.convert_to_tensor(tensor) for tensor in tensors]
        return [total / self.topology.size for total in self.all_reduce_sum(tensors)]

    @abc.abstractmethod
    def broadcast(self, variables: Sequence[tf.Variable]) -> tf.Operation:
        """Assigns rank 0's values of the float variables on every rank; others are left alone."""

    def wrap_optimizer(self, optimizer: tf.compat.v1.train.Optimizer) -> tf.compat.v1.train.Optimizer:
        """The optimizer that a step uses in place of `optimizer`; once in a graph."""
        return optimizer

    def exchange(
        self, gradients: Sequence[tf.Tensor], scalars: Sequence[tf.Tensor], others: Sequence[tf.Tensor] = ()
    ) -> Tuple[List[tf.Tensor], List[tf.Tensor], List[tf.Tensor]]:
        """Means over ranks of what a step shares, the same on all ranks, in as few collectives as can be.

        Args:
            gradients: as `compute_gradients` of the wrapped optimizer gave them.
            scalars: float32.
            others: float32, known before the gradients are.
        """
        tensors = [*map(tf.convert_to_tensor, gradients), *scalars]
        means = self.all_reduce_mean(tensors)
        # Not in the same buffer: its layout decides last bits of a run, see `Collectives`.
        shared = self.all_reduce_mean(others) if others else []
        return means[: len(gradients)], means[len(gradients) :], shared

    @property
    def applied_steps(self) -> Optional[tf.Variable]:
        """What an update advances where it is applied; None where every update is."""
        return None

    def count_step(self, update: tf.Operation) -> List[tf.Operation]:
        """Operations that the backend adds to a step whose update is `update`."""
        return []

    @property
    def steps_not_finite(self) -> int:
        """How many steps in a row, the last one made included, had a loss that is not finite.

        0 also where nobody counts them: the metrics of each step are seen then.
        """
        return 0

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
    def run_steps(
        self, session: tf.compat.v1.Session, step: Step, count: int, pulse: Callable[[], bool] = go_on
    ) -> ChunkResult:
        """Advances `count` steps, one at least.

        The weights after a number of steps do not depend on how they were cut into calls.

        Args:
            pulse: called after each step by a backend that makes them one by one; it tells whether this
                rank has been asked to stop. Such a backend may then end early, all ranks after the same
                step. One whose steps run on the device by themselves does not call it.
        """

    def extra_metrics(self, metrics: Dict[str, float]) -> Dict[str, float]:
        """What the backend adds to a log line, such as skipped steps; may raise RunError."""
        return {}
