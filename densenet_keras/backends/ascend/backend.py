"""Ascend 910 ranks: one process and one NPU each, through the adapter for TensorFlow 1.15.

Nothing here relies on a name or a behaviour that only one generation of the adapter has. The adapter
itself is named in `adapter` only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Optional, Sequence, Set, Tuple

import tensorflow as tf

from densenet_keras.backends.ascend import (
    adapter,
    broken_steps,
    chips,
    graph_check,
    loop_plan,
    option_keys,
    work_folder,
)
from densenet_keras.backends.ascend import flags as npu_flags
from densenet_keras.backends.ascend import options as npu_options
from densenet_keras.backends.ascend import session as npu_session
from densenet_keras.backends.ascend.loss_scale import FiniteLossScaleOptimizer
from densenet_keras.backends.ascend.overflow import OverflowCounter
from densenet_keras.backends.ascend.rank_environment import shutdown_seconds
from densenet_keras.backends.base import Backend, ChunkResult, Step, go_on
from densenet_keras.errors import RunError, UsageError
from densenet_keras.schedule import RunPlan
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology

logger = logging.getLogger(__name__)

# A dynamic loss scale starts where float16 gradients just fit and looks for more room now and then.
_DYNAMIC_LOSS_SCALE = {
    "init_loss_scale": 2.0**16,
    "incr_every_n_steps": 1000,
    "decr_every_n_nan_or_inf": 2,
    "incr_ratio": 2,
    "decr_ratio": 0.5,
}

# Not among the gradients that are fused into segments: their indices must not shift.
_UNFUSED = 0


class AscendBackend(Backend):
    """Trains on one NPU; ranks talk over the adapter's collectives.

    Several steps run on the device in one session.run, see `loop_plan`.
    """

    name = "ascend"
    compiles_graphs = True

    def __init__(self, config: Config, topology: Topology, parts: Optional[adapter.Adapter] = None) -> None:
        """
        Args:
            parts: what to build with in place of the installed adapter, for a plan without a device.

        Raises:
            UsageError: a flag of the NPU is wrong.
            RunError: the adapter does not load, or the environment of a rank is incomplete.
        """
        super().__init__(config, topology)
        npu_flags.validate(config)
        if parts is None:
            npu_session.check_environment(os.environ, topology)
            work_folder.make(config, topology.rank, os.environ)
            npu_session.drop_misread(os.environ)
        self._adapter = parts or adapter.load()
        self._chip = chips.of(config)
        if self._chip is not chips.ATLAS_910 and not self._adapter.is_newer:
            raise RunError(
                f"the installed adapter is too old for {self._chip.title}: install the one that comes with "
                "this machine's CANN, or say --npu 910 if it is one"
            )
        self._operations = graph_check.installed_operations(os.environ.get("ASCEND_OPP_PATH", ""))
        self._loop = loop_plan.LoopPlan(length=1, loops=0, single_steps=0)
        self._notes: List[str] = []
        self._loop_op: Optional[tf.Operation] = None
        self._compiled: Set[tf.Operation] = set()
        self._exchanges = False  # gradients, over ranks
        self._optional_variables: List[tf.Variable] = []
        self._overflow: Optional[OverflowCounter] = None
        self._loss_scale: Any = None
        self._counts: Dict[str, tf.Tensor] = {}
        self._broken: Optional[broken_steps.BrokenSteps] = None
        self._steps_not_finite = 0
        self._log_line: Dict[str, float] = {}

    def placement(self) -> ContextManager[None]:
        """Nothing to place: the adapter takes the graph as a whole."""
        return contextlib.nullcontext()

    def plan_steps(self, plan: RunPlan, first_step: int) -> None:
        """Chooses the loop length, which is also an option of the session."""
        self._loop = loop_plan.choose(plan, first_step)
        self._notes = [loop_plan.explain(self._loop, plan)]

    def notes(self) -> List[str]:
        """The loop length, and what the flags of this run entail."""
        return [*self._notes, *npu_flags.notes(self.config)]

    def describe_device(self) -> str:
        """See `Backend.describe_device`."""
        precision = npu_flags.precision(self.config)
        return f"{self._chip.title}, precision mode {precision}; {super().describe_device()}"

    @property
    def optional_variables(self) -> List[tf.Variable]:
        """The state of a dynamic loss scale."""
        return list(self._optional_variables)

    def session_config(self) -> tf.compat.v1.ConfigProto:
        """The configuration of this rank's session; creates the folders it names."""
        options = npu_options.session_options(self.config, self.topology.rank, self._loop.length, os.environ)
        npu_options.make_folders(options)
        for key in options:
            if key == option_keys.PRECISION_MODE_V2 and not self._adapter.is_newer:
                raise UsageError(
                    f"--npu_option {key}: the installed adapter does not read it and takes a mode of its "
                    f"own; give --{option_keys.PLAIN_FLAGS[0]}"
                )
            if option_keys.is_ignored(key, self._adapter.is_newer):
                generation = "newer" if self._adapter.is_newer else "older"
                logger.warning("the installed adapter is %s than option %s and ignores it", generation, key)
        return npu_session.config_proto(options)

    @contextlib.contextmanager
    def session(self, graph: tf.Graph) -> Iterator[tf.compat.v1.Session]:
        """See `Backend.session`.

        The device system starts in this session, because it takes most options from the first one that
        runs on the device. The session is also Keras's and the default one.
        """
        with graph.as_default(), tf.name_scope(None), tf.control_dependencies(None):
            start = self._adapter.initialize_system()
            stop = self._adapter.shutdown_system()
        session = tf.compat.v1.Session(graph=graph, config=self.session_config())
        failure: Optional[BaseException] = None
        try:
            with graph.as_default(), session.as_default(), npu_session.used_by_keras(session):
                session.run(start)
                if self._exchanges and self.topology.size > 1:
                    npu_session.split_gradients(self._adapter, self.config)
                yield session
        except BaseException as error:
            failure = error
            raise
        finally:
            npu_session.close(session, stop, failure, shutdown_seconds(os.environ))
            self._loop_op = None
            self._compiled.clear()

    def all_reduce_sum(self, tensors: Sequence[tf.Tensor]) -> List[tf.Tensor]:
        """See `Backend.all_reduce_sum`; other types than float32 and int32 are a ValueError."""
        for tensor in tensors:
            if tensor.dtype.base_dtype not in (tf.float32, tf.int32):
                raise ValueError(
                    f"{tensor.name} is {tensor.dtype.name}; ranks can sum float32 and int32: cast it first"
                )
        # A collective takes the value of a variable, not the variable itself.
        values = [tf.identity(tensor) for tensor in tensors]
        if self.topology.size == 1:
            return values
        sums = []
        with tf.name_scope("sum_over_ranks"):
            for value in values:
                total = self._adapter.all_reduce(value, "sum", fusion=_UNFUSED)
                total.set_shape(value.shape)
                sums.append(total)
        return sums

    def broadcast(self, variables: Sequence[tf.Variable]) -> tf.Operation:
        """See `Backend.broadcast`; integers, the global step among them, are never sent."""
        floating = [variable for variable in variables if variable.dtype.is_floating]
        if self.topology.size == 1 or not floating:
            return tf.no_op(name="broadcast")
        for variable in floating:
            if variable.dtype.base_dtype not in (tf.float32, tf.float16):
                raise ValueError(f"{variable.name} is {variable.dtype.name}; ranks send float32 and float16")
        with tf.name_scope("broadcast"):
            # The device changes a plain variable in place, a resource variable only by the assignment.
            received = [self._adapter.broadcast([variable], 0)[0] for variable in floating]
            return tf.group(*(tf.compat.v1.assign(v, value) for v, value in zip(floating, received)))

    def wrap_optimizer(self, optimizer: tf.compat.v1.train.Optimizer) -> tf.compat.v1.train.Optimizer:
        """See `Backend.wrap_optimizer`: averages gradients over ranks and scales the loss."""
        size = self.topology.size
        if size > 1:
            optimizer = self._adapter.distributed_optimizer(optimizer)
        loss_scale = npu_flags.loss_scale(self.config)
        if loss_scale.kind == "none":
            return optimizer
        before = list(tf.compat.v1.global_variables())
        with tf.name_scope(None), tf.control_dependencies(None):
            if loss_scale.kind == "fixed":
                manager = self._adapter.fixed_loss_scale(loss_scale.value)
            else:
                manager = self._adapter.dynamic_loss_scale(**_DYNAMIC_LOSS_SCALE)
            limit = self.config.ascend.max_skipped_steps
            self._overflow = OverflowCounter(limit, option_keys.keep_float32(self._adapter.is_newer))
        self._optional_variables = [v for v in tf.compat.v1.global_variables() if v not in before]
        self._loss_scale = manager.get_loss_scale()
        if not self._chip.saturates:
            return FiniteLossScaleOptimizer(optimizer, manager)
        return self._adapter.loss_scale_optimizer(optimizer, manager, is_distributed=size > 1)

    def exchange(
        self, gradients: Sequence[tf.Tensor], scalars: Sequence[tf.Tensor], others: Sequence[tf.Tensor] = ()
    ) -> Tuple[List[tf.Tensor], List[tf.Tensor], List[tf.Tensor]]:
        """See `Backend.exchange`; the adapter's optimizer has averaged the gradients already.

        All the rest travels in one buffer.
        """
        self._exchanges = True
        if self.topology.size > 1:
            npu_flags.check_gradient_split(self.config, len(gradients))
        with self.full_precision():
            vectors = [tf.stack(list(scalars)), *others]
            flat = tf.concat([tf.reshape(vector, [-1]) for vector in vectors], axis=0)
            means = tf.split(
                self.all_reduce_mean([flat])[0], [vector.shape.num_elements() for vector in vectors]
            )
            self._broken = broken_steps.BrokenSteps(means[0])
            shared = [tf.reshape(mean, other.shape) for mean, other in zip(means[1:], others)]
            return list(gradients), tf.unstack(means[0]), shared

    @property
    def applied_steps(self) -> Optional[tf.Variable]:
        """See `Backend.applied_steps`; with loss scaling, updates that overflow are skipped."""
        return self._overflow.applied if self._overflow else None

    def count_step(self, update: tf.Operation) -> List[tf.Operation]:
        """See `Backend.count_step`."""
        updates: List[tf.Operation] = []
        self._counts = {}
        if self._broken is not None:
            self._counts[broken_steps.NAME] = self._broken.in_row
            updates += self._broken.updates
        if self._overflow is not None:
            self._counts.update(self._overflow.count(update, self._loss_scale))
            updates += self._overflow.updates
        return updates

    @property
    def steps_not_finite(self) -> int:
        """See `Backend.steps_not_finite`."""
        return self._steps_not_finite

    def full_precision(self) -> ContextManager[None]:
        """See `Backend.full_precision`."""
        return self._adapter.keep_dtype_scope()

    def check_graph(self, fetches: Sequence[Any], purpose: str) -> None:
        """See `Backend.check_graph`."""
        graph = tf.compat.v1.get_default_graph()
        findings = graph_check.check(
            graph,
            fetches,
            loop_op=adapter.LOOP_OP,
            loops=self._loop.length > 1,
            supported=self._operations,
            trusted_folder=self._adapter.folder,
        )
        if findings:
            raise RunError(
                f"the NPU cannot run the graph for {purpose}, {len(findings)} nodes are in the way:\n"
                + graph_check.report(findings)
            )

    def prepare_steps(
        self, session: tf.compat.v1.Session, step: Step, plan: RunPlan, first_step: int
    ) -> None:
        """Builds the loop and checks the graph; nothing may initialise local variables after this."""
        length = loop_plan.choose(plan, first_step).length
        if length != self._loop.length:
            raise ValueError(
                f"the session loops {self._loop.length} steps, this plan asks for {length}; "
                "call plan_steps with the same plan before session"
            )
        with session.graph.as_default(), tf.name_scope(None), tf.control_dependencies(None):
            if tf.compat.v1.get_variable_scope().name:
                raise ValueError("prepare_steps inside a variable scope would rename the loop's variables")
            self._loop_op = self._adapter.set_iteration_per_loop(session, step.train_op, length)
            if length > 1 and self._loop_op.name != adapter.LOOP_OP:
                raise RunError(
                    f"the loop was built as {self._loop_op.name} instead of {adapter.LOOP_OP}, so it would "
                    "run one step at a time; the graph already has an operation of that name"
                )
            self.check_graph(self._fetches(self._loop_op, step), "training")

    def run_steps(
        self, session: tf.compat.v1.Session, step: Step, count: int, pulse: Callable[[], bool] = go_on
    ) -> ChunkResult:
        """See `Backend.run_steps`: loops first, then what is left over as single steps."""
        if count < 1 or self._loop_op is None:
            raise ValueError(f"run_steps of {count} steps; at least 1, and after prepare_steps")
        loops, singles = divmod(count, self._loop.length)
        untimed_steps, untimed_seconds = 0, 0.0
        values: Dict[str, float] = {}
        for op, runs, length in ((self._loop_op, loops, self._loop.length), (step.train_op, singles, 1)):
            for _ in range(runs):
                started = time.monotonic()
                compiles = op not in self._compiled
                with self._announced(length) if compiles else contextlib.nullcontext():
                    _, *fetched = session.run(self._fetches(op, step))
                if compiles:
                    self._compiled.add(op)
                    untimed_steps += length
                    untimed_seconds += time.monotonic() - started
                values = dict(zip(self._names(step), map(float, fetched)))
        self._steps_not_finite = int(values.get(broken_steps.NAME, 0))
        if self._overflow:
            self._log_line = self._overflow.report(values, self.topology.is_primary)
        metrics = {name: values[name] for name in step.metrics}
        return ChunkResult(metrics, float("nan"), untimed_steps, untimed_seconds)

    def _announced(self, length: int) -> ContextManager[None]:
        return self.compiling("single steps" if length == 1 else f"loops of {length} steps")

    def extra_metrics(self, metrics: Dict[str, float]) -> Dict[str, float]:
        """Skipped steps and the loss scale, with loss scaling."""
        return dict(self._log_line)

    def _names(self, step: Step) -> List[str]:
        return [*sorted(step.metrics), *sorted(self._counts)]

    def _fetches(self, op: tf.Operation, step: Step) -> List[Any]:
        """Always the same list for an operation: another one would be another graph to compile."""
        tensors = {**step.metrics, **self._counts}
        return [op, *(tensors[name] for name in self._names(step))]
