"""CPU and GPU ranks: stock TensorFlow, one process and one device for each rank."""

from __future__ import annotations

import atexit
import contextlib
import functools
import math
import socket
import sys
import time
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2 as tf_config
from tensorflow.core.protobuf import rewriter_config_pb2

from densenet_keras.backends.base import Backend, ChunkResult, Step, go_on
from densenet_keras.backends.tensorflow import cuda_driver, gradients, local
from densenet_keras.backends.tensorflow.collectives import Collectives
from densenet_keras.errors import RunError, UsageError
from densenet_keras.settings.config import Config
from densenet_keras.settings.rules import counted
from densenet_keras.topology import Topology

# Operations of the step that may run at the same time. A DenseNet is a chain: more gain nothing.
_STEP_THREADS = 2
_CONNECT_PAUSE_SECONDS = 0.05
_FIRST_NEWS_SECONDS, _NEWS_SECONDS = 5.0, 30.0  # until a rank that does not answer is named, and again


class TensorFlowBackend(Backend):
    """Trains on the CPU, or on a GPU if TensorFlow sees one; ranks talk over TensorFlow collectives.

    One rank is a plain session. Each of several ranks runs a TensorFlow server at its address and a
    session on it. The server listens on every interface of the host and obeys all that connect: several
    ranks belong on loopback or on a private network.

    With GPUs, each rank of a host takes the GPU of its local rank and float32 sums go through NCCL. That
    path follows TensorFlow's documentation and has not been run on GPUs.
    """

    name = "tensorflow"
    repeats_steps = True

    def __init__(self, config: Config, topology: Topology) -> None:
        """
        Raises:
            UsageError: several ranks without an address for each, or fewer GPUs than ranks on the host.
        """
        super().__init__(config, topology)
        if topology.size > 1 and len(topology.addresses) != topology.size:
            raise UsageError(
                f"{topology.size} ranks need as many addresses, got {len(topology.addresses)}; start them "
                "with --rank_size, or list host:port of every rank in TF_CONFIG"
            )
        self._has_gpu = _has_gpu(topology)
        self.rearranges = config.device.fast_cpu is not False and not self._has_gpu
        self._collectives: Optional[Collectives] = None
        if topology.size > 1:
            task = f"/job:worker/task:{topology.rank}"
            self._collectives = Collectives(
                topology.rank,
                topology.size,
                host=f"{task}/device:CPU:0",
                accelerator=f"{task}/device:GPU:0" if self._has_gpu else "",
            )
        self._data_wait: Optional[tf.Tensor] = None
        self._stop: Optional[_Stop] = None
        self._runner: Optional[_Runner] = None

    def describe_device(self) -> str:
        """See `Backend.describe_device`."""
        threads = counted(self.config.device.intra_op_threads or 1, "thread")
        where = "the GPU" if self._has_gpu else f"the CPU with {threads}"
        return f"{where}, {self.config.model.dtype.rpartition('.')[2]}; {super().describe_device()}"

    @contextlib.contextmanager
    def placement(self) -> Iterator[None]:
        """Pins the graph to this rank: unplaced work could land on rank 0, which would wait for itself.

        On a CPU with --fast_cpu, its convolutions also get the gradients of `gradients`.
        """
        with contextlib.ExitStack() as stack:
            if self.topology.size > 1:
                device = "" if self._has_gpu else "/device:CPU:0"
                stack.enter_context(tf.device(f"/job:worker/task:{self.topology.rank}{device}"))
            if self.rearranges:
                stack.enter_context(gradients.fast_gradients(tf.compat.v1.get_default_graph()))
            yield

    @contextlib.contextmanager
    def session(self, graph: tf.Graph) -> Iterator[tf.compat.v1.Session]:
        """See `Backend.session`; returns once every rank's server answers.

        The session is also Keras's and the default one, both for the calling thread only.

        Raises:
            RunError: a rank did not appear within `first_step_timeout_seconds`.
        """
        session_config = self._session_config()
        target = ""
        if self.topology.size > 1:
            addresses, rank = self.topology.addresses, self.topology.rank
            target = _server(addresses, rank, session_config.SerializeToString()).target
            _await_servers(addresses, self.config.device.first_step_timeout_seconds)
        with tf.compat.v1.Session(target, graph=graph, config=session_config) as session:
            tf.compat.v1.keras.backend.set_session(session)
            try:
                yield session
            finally:
                self._runner = None
                tf.compat.v1.keras.backend.set_session(None)

    def all_reduce_sum(self, tensors: Sequence[tf.Tensor]) -> List[tf.Tensor]:
        """See `Backend.all_reduce_sum`; other types than float32 and int32 are a ValueError."""
        if self._collectives is None:
            return [tf.convert_to_tensor(tensor) for tensor in tensors]
        return self._collectives.sums(tensors)

    def all_reduce_mean(self, tensors: Sequence[tf.Tensor]) -> List[tf.Tensor]:
        """See `Backend.all_reduce_mean`; divides the packed buffer, not tensor by tensor."""
        if self._collectives is None:
            return super().all_reduce_mean(tensors)
        return self._collectives.means(tensors)

    def broadcast(self, variables: Sequence[tf.Variable]) -> tf.Operation:
        """See `Backend.broadcast`; the variables must be initialised on every rank before."""
        floating = [variable for variable in variables if variable.dtype.base_dtype.is_floating]
        if self._collectives is None or not floating:
            return tf.no_op(name="broadcast")
        return self._collectives.from_rank_0(floating)

    def exchange(
        self, gradients: Sequence[tf.Tensor], scalars: Sequence[tf.Tensor], others: Sequence[tf.Tensor] = ()
    ) -> Tuple[List[tf.Tensor], List[tf.Tensor], List[tf.Tensor]]:
        """See `Backend.exchange`; whether a rank was asked to stop travels with the losses.

        So all ranks learn it in the same step, and at no cost.
        """
        if self._collectives is None:
            return super().exchange(gradients, scalars, others)
        # A variable and not a feed: a step asks nothing of the host. A local one: no checkpoint holds it.
        asked = tf.compat.v1.Variable(
            0.0,
            trainable=False,
            use_resource=True,
            collections=[tf.compat.v1.GraphKeys.LOCAL_VARIABLES],
            name="asked_to_stop",
        )
        gradients, means, shared = super().exchange(gradients, [*scalars, asked.read_value()], others)
        self._stop = _Stop(asked.assign(1.0, read_value=False), means[-1])
        return gradients, means[:-1], shared

    def measure_get_next(self, iterator: Any) -> Any:
        """`iterator.get_next()` between two readings of the clock, for `ChunkResult.data_wait_seconds`."""
        start = tf.timestamp()
        with tf.control_dependencies([start]):
            batch = iterator.get_next()
        with tf.control_dependencies(tf.nest.flatten(batch)):
            self._data_wait = tf.timestamp() - start
        return batch

    def run_steps(
        self, session: tf.compat.v1.Session, step: Step, count: int, pulse: Callable[[], bool] = go_on
    ) -> ChunkResult:
        """See `Backend.run_steps`: `count` runs of one and the same fetch.

        Fetching the metrics every time costs nothing next to a step, while a second set of fetches would
        be a second graph to optimise.
        """
        if count < 1:
            raise ValueError(f"count={count}; a chunk has at least one step")
        untimed_steps = 0
        untimed_seconds = data_wait_seconds = 0.0
        if self._runner is None or self._runner.step is not step:
            self._runner = self._make_runner(session, step)
            untimed_steps = 1
        runner = self._runner
        asked = stops = False
        done = 0
        while done < count and not stops:
            started = time.monotonic()
            fetched = runner.run()
            done += 1
            if done <= untimed_steps:
                untimed_seconds = time.monotonic() - started
            else:
                waited = math.nan if runner.data_wait is None else float(fetched[runner.data_wait])
                data_wait_seconds += waited
            felt = pulse()
            if felt and not asked:
                asked = True
                if runner.ask is not None:
                    runner.ask()
            # Several ranks stop where all of them have seen that one was asked.
            several = self.topology.size > 1
            stops = asked and not several if runner.seen is None else fetched[runner.seen] > 0.0
        metrics = {name: float(value) for name, value in zip(step.metrics, fetched)}
        stopped_after = done if done < count else None
        return ChunkResult(metrics, data_wait_seconds, untimed_steps, untimed_seconds, stopped_after)

    def _make_runner(self, session: tf.compat.v1.Session, step: Step) -> _Runner:
        fetches = list(step.metrics.values())
        data_wait = seen = ask = None
        if self._data_wait is not None and self._data_wait.graph is session.graph:
            data_wait = len(fetches)
            fetches.append(self._data_wait)
        if self._stop is not None and self._stop.ask.graph is session.graph:
            seen = len(fetches)
            fetches.append(self._stop.seen)
            ask = session.make_callable(self._stop.ask)
        if self.topology.size == 1:
            run = _direct(session, fetches, step.train_op)
        else:
            run = session.make_callable([*fetches, step.train_op])
        return _Runner(step, run, data_wait, seen, ask)

    def _session_config(self) -> tf.compat.v1.ConfigProto:
        """The same for the server and for every session: the first of a process sets its threads."""
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=self.config.device.intra_op_threads or 0,
            # tf.data decodes on the same pool, so it needs a thread for each decoder besides.
            inter_op_parallelism_threads=_STEP_THREADS + (self.config.data.data_threads or 0),
        )
        rewrite = config.graph_options.rewrite_options
        # Rematerialisation may move work around a recomputed segment, which changes last bits.
        rewrite.memory_optimization = rewriter_config_pb2.RewriterConfig.NO_MEM_OPT
        # The second pass finds nothing more in a DenseNet, and the start waits 0.5 s for it.
        rewrite.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE
        # In the rearranged form neither does the first, for which a start waits 4 s.
        rewrite.disable_meta_optimizer = self.rearranges
        if self._has_gpu:
            config.allow_soft_placement = True
            config.gpu_options.visible_device_list = str(self.topology.local_rank)
        if self.topology.size > 1:
            config.device_filters.append(f"/job:worker/task:{self.topology.rank}")
            config.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
            config.experimental.collective_nccl = self._has_gpu
        return config


class _Stop(NamedTuple):
    """How ranks learn in a step that one of them was asked to stop."""

    ask: tf.Operation  # notes it on this rank, for the steps that follow
    seen: tf.Tensor  # above zero on all ranks in the step that finds it noted on one


class _Runner(NamedTuple):
    step: Step
    run: Callable[[], Sequence[Any]]  # values of the step's metrics, and what else is fetched
    data_wait: Optional[int]  # where the wait for data stands among these, if it is measured
    seen: Optional[int]  # where `_Stop.seen` does, where there are several ranks
    ask: Optional[Callable[[], Any]]  # tells the other ranks, where there are any


def _direct(
    session: tf.compat.v1.Session, fetches: Sequence[tf.Tensor], target: tf.Operation
) -> Callable[[], Sequence[Any]]:
    """Runs `target` and gives the values of `fetches`, as session.run does at half the cost to the host.

    It is what tf.keras runs its own steps with. Only for a session of this process: one on a server has none.
    """
    # A metric may be what assign_add gives: the name of that is its operation's.
    tensors = [session.graph.as_graph_element(fetch, allow_operation=False) for fetch in fetches]
    options = tf_config.CallableOptions(fetch=[tensor.name for tensor in tensors], target=[target.name])
    run: Callable[[], Sequence[Any]] = session._make_callable_from_options(options)
    return run


def _has_gpu(topology: Topology) -> bool:
    """Whether the ranks run on GPUs; looks without allocating them."""
    gpus = cuda_driver.gpu_count()
    if gpus and topology.local_size > gpus:
        raise UsageError(
            f"{topology.local_size} ranks on a host with {gpus} GPUs; start as many ranks as GPUs, or hide "
            "the GPUs with CUDA_VISIBLE_DEVICES= to train on the CPU"
        )
    return gpus > 0


@functools.lru_cache(maxsize=None)
def _server(addresses: Tuple[str, ...], rank: int, session_config: bytes) -> tf.distribute.Server:
    """This process's server. TensorFlow cannot stop one, so it stays until the process ends."""
    local.keep_from_proxy(addresses)
    try:
        server = tf.distribute.Server(
            tf.train.ClusterSpec({"worker": list(addresses)}),
            job_name="worker",
            task_index=rank,
            config=tf.compat.v1.ConfigProto.FromString(session_config),
        )
    except tf.errors.UnknownError as error:
        raise RunError(
            f"rank {rank} cannot listen at {addresses[rank]}, the address that it was given: something else "
            "uses that port, mostly a run that has not ended; end it, or give another port in TF_CONFIG"
        ) from error
    local.hide(addresses, rank)
    return server


# While TensorFlow's modules still exist: the server's destructor uses them.
atexit.register(_server.cache_clear)


def _await_servers(addresses: Sequence[str], timeout_seconds: float) -> None:
    """Returns when every address accepts connections: the first collective would wait for good.

    Says every now and then whom it waits for.

    Raises:
        RunError: naming the rank that does not answer.
    """
    deadline = time.monotonic() + timeout_seconds
    news = time.monotonic() + _FIRST_NEWS_SECONDS
    for rank, address in enumerate(addresses):
        host, _, port = address.rpartition(":")
        while True:
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
                break
            except (OSError, UnicodeError) as error:  # a name that IDNA cannot encode
                if time.monotonic() > news:
                    news = time.monotonic() + _NEWS_SECONDS
                    left = deadline - time.monotonic()
                    sys.stderr.write(f"waiting for rank {rank} at {address} ({error}), {left:.0f} s more\n")
                if time.monotonic() > deadline:
                    raise RunError(
                        f"rank {rank} does not answer at {address} after {timeout_seconds:g} s ({error}); "
                        "see its log, and check that the port is open between the hosts"
                    ) from error
                time.sleep(_CONNECT_PAUSE_SECONDS)
