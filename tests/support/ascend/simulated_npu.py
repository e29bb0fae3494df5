"""A pretended Ascend device under the adapter's Python layer: its operations, executed on the CPU.

`OPERATIONS` has what the adapter's native library exports; importing this module also makes TensorFlow
sessions with the adapter's options behave like the device: an IterationOp loops as often as the loop
variables say, graphs of several ranks must be the same in the same order, and what the device or its
compiler refuses ends the run. Collectives are TensorFlow's own, over a server in each rank process.

Read from the environment: RANK_ID, RANK_SIZE; SIMULATED_NPU_ADDRESSES, host:port of every rank's server,
with commas; SIMULATED_NPU_OVERFLOW, steps of this process at which float16 overflows, with commas;
SIMULATED_NPU_GENERATION, older (the default) or newer: how a failed run ends, and what the adapter has;
SIMULATED_NPU_CHIP=910b: an overflow makes the gradients of its rank infinite instead of setting the status;
SIMULATED_NPU_SHUTDOWN=hang; SIMULATED_NPU_BREAK, what it does wrong on purpose, see `simulated_faults`;
SIMULATED_NPU_CHIPS, the folder in which it says how much memory it uses, for the npu-smi beside this file.
"""

import functools
import itertools
import os
import socket
import sys
import time
import zlib

import compiler_files
import numpy as np
import simulated_faults as faults
import tensorflow as tf
from tensorflow.python.client import session as session_lib
from tensorflow.python.ops import collective_ops

HALF_MAX = 65504.0
OWN_SCOPE = "simulated_device"
LOOP_OP = "IterationOp"
LOOP_VARIABLES = "npu_runconfig/"
TIMEOUT_SECONDS = 90
ALL_REDUCE_TYPES = (tf.int8, tf.int16, tf.int32, tf.float16, tf.float32)
MERGES = {"sum": "Add", "max": "Max", "min": "Min", "prod": "Mul"}

# Field that the adapter reads of each option it knows.
_BOOLEANS = """
use_off_line mix_compile_mode enable_data_pre_proc hcom_parallel profiling_mode enable_dump enable_dump_debug
lower_functional_ops
"""
_INTEGERS = "iterations_per_loop graph_run_mode op_debug_level enable_exception_dump"
_STRINGS = """
precision_mode profiling_options dump_path dump_step dump_mode dump_debug_mode modify_mixlist
op_compiler_cache_dir op_compiler_cache_mode graph_memory_max_size debug_dir
"""
FIELDS = {key: field for field, keys in zip("bis", (_BOOLEANS, _INTEGERS, _STRINGS)) for key in keys.split()}
ZEROS = {"b": False, "i": 0, "s": b""}

# A run of nothing but these stays on the host.
HOST_TYPES = {"Placeholder", "Const", "NoOp", "Identity", "SaveV2", "RestoreV2", "MergeV2Checkpoints"}

# What tests look at.
history = []  # one tuple an event
split_strategy = None
is_up = False


class DeviceError(RuntimeError):
    """What the device refuses with an error."""


def fatal(message):
    """The adapter's native library ends the process; tests may replace this."""
    sys.stderr.write(f"F {message}\n")
    sys.stderr.flush()
    os.abort()


def failed_run(error):
    """What becomes of an error of the graph or its input: nobody hands it to session.run.

    Sources: the older adapter's host_queue_dataset_op.cc and the callback in its geop_npu.cc; of the newer
    one geop_npu.cc and a log of its InternalError (docs/ascend.md).
    """
    name = "GeOp1_0GEOP::::DoRunAsync Failed"
    sys.stderr.write(f"E tf_adapter/kernels/host_queue_dataset_op.cc:223] Failed to get tensor data, Status:"
                     f"{type(error).__name__}: {error.message}\n")  # fmt: skip
    sys.stderr.flush()
    if os.environ.get("SIMULATED_NPU_GENERATION", "older") == "older":
        fatal(f"tf_adapter/kernels/geop_npu.cc:743] {name}")
    raise tf.errors.InternalError(
        None,
        None,
        f"{name}\nError Message is :\nE39999: Inner Error!\n"
        "        Aicpu kernel execute failed, fault kernel_name=GetNext",
    ) from None


def rank():
    return int(os.environ.get("RANK_ID") or 0)


def size():
    return int(os.environ.get("RANK_SIZE") or 1)


# --- operations -------------------------------------------------------------------------------------

_instance_keys = itertools.count(1)


class Operations:
    """Python functions with the signatures of the native library's."""

    def npu_init(self, name=None):
        return _marked("NPUInit", name)

    def npu_shutdown(self, name=None):
        return _marked("NPUShutdown", name)

    def hcom_all_reduce(self, input, reduction, group, fusion, fusion_id, name=None):
        _check_group(group)
        if isinstance(input, tf.Variable):
            raise DeviceError("HcomAllReduce cannot take a variable")
        tensor = tf.convert_to_tensor(input)
        if tensor.dtype.base_dtype not in ALL_REDUCE_TYPES:
            raise TypeError(f"HcomAllReduce does not take {tensor.dtype.name}")
        if fusion not in (0, 1, 2) or (fusion and reduction != "sum"):
            raise DeviceError(f"fusion {fusion} of {reduction}")
        if fusion == 1:
            tf.compat.v1.add_to_collection("simulated/fused", tensor)
        if size() == 1 or (fusion == 1 and faults.has("drift")):
            return tf.identity(tensor, name=name or "HcomAllReduce")
        if _gives_infinities() and fusion == 1:
            tensor = _infinite_at_planned_steps(tensor)
        with tf.device(_device()):
            total = collective_ops.all_reduce(
                tf.identity(tensor), size(), 1, next(_instance_keys), MERGES[reduction], "Id"
            )
        total.set_shape(tensor.shape)
        return total

    def hcom_broadcast(self, input, root_rank, group, fusion, fusion_id, name=None):
        _check_group(group)
        if not isinstance(input, (list, tuple)):
            raise TypeError("HcomBroadcast takes a list of tensors")
        outputs = []
        for tensor in map(tf.convert_to_tensor, input):
            if tensor.dtype.base_dtype not in ALL_REDUCE_TYPES:
                raise DeviceError(f"HCCL refuses to send {tensor.dtype.name}")
            outputs.append(_send(tensor, root_rank))
        return outputs

    def npu_alloc_float_status(self, name=None):
        with tf.init_scope():
            buffer = tf.compat.v1.Variable(
                np.zeros(8, np.float32),
                trainable=False,
                use_resource=False,
                collections=[tf.compat.v1.GraphKeys.LOCAL_VARIABLES],
                name="NpuAllocFloatStatus",
            )
        # A reference to the buffer, so that writing to it later is seen by whoever holds this.
        return tf.compat.v1.assign(buffer, np.zeros(8, np.float32))

    def npu_get_float_status(self, input_float, name=None):
        status = tf.cast(_overflow(), tf.float32) * np.ones(8, np.float32)
        return tf.compat.v1.assign(input_float, status)

    def npu_clear_float_status(self, float_status, name=None):
        with tf.control_dependencies([float_status.op]):
            return tf.zeros([8])

    def npu_get_float_status_v2(self, name=None):
        return tf.cast(_overflow(), tf.int32) * np.ones(8, np.int32)

    def npu_clear_float_status_v2(self, name=None):
        return tf.no_op(name="NpuClearFloatStatusV2")


OPERATIONS = Operations()


def _marked(kind, name):
    op = tf.no_op(name=name or kind)
    tf.compat.v1.add_to_collection("simulated/" + kind, op)
    return op


def _check_group(group):
    if group != "hccl_world_group":
        raise DeviceError(f"group {group} was not created")


def _device():
    return f"/job:worker/task:{rank()}/device:CPU:0"


def _send(tensor, root_rank):
    if size() == 1:
        return tf.identity(tensor)
    key = next(_instance_keys)
    # The receiver waits for its own tensor too, so that all ranks' graphs have the same nodes.
    with tf.device(_device()), tf.name_scope(OWN_SCOPE), tf.control_dependencies([tensor.op]):
        if rank() == root_rank:
            value = tf.identity(tensor)
            return collective_ops.broadcast_send(value, value.shape, value.dtype, size(), 1, key)
        return collective_ops.broadcast_recv(tensor.shape, tensor.dtype.base_dtype, size(), 1, key)


def _overflow():
    """Whether float16 would have overflowed on the way to the gradients that are waited for here."""
    graph = tf.compat.v1.get_default_graph()
    gradients = [op for op in graph._control_dependencies_for_inputs([]) if op.outputs]
    with tf.name_scope(OWN_SCOPE):
        return _any_overflow(gradients)


def _gives_infinities():
    return os.environ.get("SIMULATED_NPU_CHIP") == "910b"


def _infinite_at_planned_steps(gradient):
    with tf.name_scope(OWN_SCOPE):
        return tf.where(_is_planned(), gradient * np.inf, gradient)


def _any_overflow(gradients):
    if _gives_infinities():
        return tf.constant(False)  # the status is silent in this mode
    flags = []
    for op in gradients:
        if op.type != "Mul":
            continue  # not a gradient that was scaled back
        scaled = op.inputs[0]
        flags.append(tf.reduce_any(tf.logical_not(tf.abs(scaled) <= HALF_MAX)))
    flags.append(_is_planned())
    left = faults.leftover()
    if left is not None:
        found = left.read_value()
        with tf.control_dependencies([found]), tf.control_dependencies([left.assign(False)]):
            flags.append(tf.identity(found))
    if faults.has("overflow"):
        return tf.zeros_like(flags[0])
    return tf.reduce_any(tf.stack(flags))


def _is_planned():
    """Whether an overflow is planned for this step, counted by those that ask."""
    with tf.init_scope():
        counter = tf.compat.v1.Variable(
            0,
            trainable=False,
            use_resource=True,
            collections=[tf.compat.v1.GraphKeys.LOCAL_VARIABLES],
            name="simulated_step",
        )
    planned = [int(step) for step in os.environ.get("SIMULATED_NPU_OVERFLOW", "").split(",") if step]
    return tf.reduce_any(tf.equal(counter.assign_add(1), planned or [-1]))


# --- sessions ---------------------------------------------------------------------------------------

_session_init = session_lib.BaseSession.__init__
_session_run = session_lib.BaseSession.run
_session_close = session_lib.BaseSession.close


def options_of(config):
    """Key to value of the adapter's entry; None without one."""
    if config is None:
        return None
    for optimizer in config.graph_options.rewrite_options.custom_optimizers:
        if optimizer.name == "NpuOptimizer":
            options = {}
            for key, value in optimizer.parameter_map.items():
                field = value.WhichOneof("value")
                # A value in a field that is not read counts as that field's zero.
                wanted = FIELDS.get(key, field)
                options[key] = getattr(value, field) if field == wanted else ZEROS[wanted]
            return options
    return None


def _check_options(options):
    if options.get("iterations_per_loop", 1) < 1:
        fatal("iterator_per_loop should be int and must >= 1")
    if options.get("enable_dump") and options.get("enable_dump_debug"):
        raise DeviceError("enable_dump and enable_dump_debug exclude each other")
    for key in ("dump_path",):
        if key in options and not os.path.isdir(options[key]):
            raise DeviceError(f"{key} {options[key]} does not exist")
    if options.get("modify_mixlist") and b"allow_mix_precision" not in options.get("precision_mode", b""):
        raise DeviceError("modify_mixlist needs mixed precision")


def _init(self, target="", graph=None, config=None):
    options = options_of(config)
    if options is not None:
        _check_options(options)
        if size() > 1:
            target = _server().target
            config.device_filters.append(f"/job:worker/task:{rank()}")
            config.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
    self._npu_options = options
    self._npu_graphs = {}
    self._npu_is_closed = False
    _session_init(self, target, graph, config)
    history.append(("session", options))


def _run(self, fetches, feed_dict=None, options=None, run_metadata=None):
    global is_up
    run = functools.partial(_session_run, self)
    nothing = isinstance(fetches, (list, tuple, dict)) and not fetches
    if getattr(self, "_npu_options", None) is None or nothing:
        return run(fetches, feed_dict, options, run_metadata)
    ops = _fetched_ops(self.graph, fetches)
    for kind, up in (("NPUInit", True), ("NPUShutdown", False)):
        if set(ops) & set(self.graph.get_collection("simulated/" + kind)):
            history.append((kind,))
            is_up = up
            if up:
                faults.take_chip(os.environ.get("DEVICE_ID") or "0")
            while not up and os.environ.get("SIMULATED_NPU_SHUTDOWN") == "hang":
                time.sleep(1)
            return run(fetches, feed_dict, options, run_metadata)
    ancestors = _ancestors(ops, {self.graph.as_graph_element(fed) for fed in feed_dict or ()})
    types = {op.type for op in ancestors}
    if "MakeIterator" in types and types & {"Assign", "AssignVariableOp"}:
        history.append(("host_initialisation",))
        result = run(fetches, feed_dict, options, run_metadata)
        _zero(run, ancestors)
        return result
    if types <= HOST_TYPES or "MakeIterator" in types:
        history.append(("host", sorted(types)))
        return run(fetches, feed_dict, options, run_metadata)
    is_up = True
    _check_graph(self, ops, ancestors, types, feed_dict)
    count = _iterations(self, run, ancestors)
    count = faults.iterations(self, ancestors, any(op.name == LOOP_OP for op in ancestors), count)
    history.append(("run", count, tuple(sorted(op.name for op in ops))))
    feed_dict = faults.fed(ops, feed_dict)
    if count > 1 and feed_dict is None:
        feed_dict = faults.fed_again(run, ancestors)
    for _ in range(count):
        try:
            result = run(fetches, feed_dict, options, run_metadata)
        except tf.errors.OutOfRangeError:
            raise  # the adapter's callback knows this end
        except tf.errors.OpError as error:
            if "Iterator" not in " ".join(types):
                raise
            failed_run(error)
    faults.after_run(self, run, types, ancestors)
    return faults.results(self, fetches, result, types)


def _fetched_ops(graph, fetches):
    nodes = [graph.as_graph_element(fetch) for fetch in tf.nest.flatten(fetches)]
    return [getattr(node, "op", node) for node in nodes]


def _ancestors(ops, fed):
    """What a run is made of.

    TensorFlow cuts a graph where it is fed before the adapter sees it: what decides about the device is
    registered for POST_REWRITE_FOR_EXEC and POST_PARTITIONING (om_partition_subgraphs_pass.cc).
    """
    seen, stack = set(), list(ops)
    while stack:
        op = stack.pop()
        if op not in seen:
            seen.add(op)
            stack.extend([tensor.op for tensor in op.inputs if tensor not in fed] + list(op.control_inputs))
    return seen


def _zero(run, ancestors):
    """Initialised on the host, so the device's copies are still zero."""
    for op in ancestors:
        if op.type in ("Assign", "AssignVariableOp"):
            value = op.inputs[1]
            run(op, {value: np.zeros(value.shape.as_list(), value.dtype.as_numpy_dtype)})


def _check_graph(session, ops, ancestors, types, feed_dict):
    """Once for each new set of fetches: that is when the device compiles."""
    key = (tuple(sorted(op.name for op in ops)), tuple(sorted(str(fed) for fed in feed_dict or ())))
    if key in session._npu_graphs:
        return
    if "OneShotIterator" in types and session._npu_options.get("iterations_per_loop", 1) != 1:
        fatal("iterator_per_loop only support 1 when using OneShotIterator")
    session._npu_graphs[key] = 10 * len(session._npu_graphs) + 1
    if not faults.has("folders"):
        compiler_files.leave(session._npu_options, session._npu_graphs[key])
    _check_split(session.graph, ancestors)
    if faults.has("out_of_memory"):
        batches = [op.outputs[0].shape.as_list()[:1] for op in ancestors if op.type == "IteratorGetNext"]
        if any(batch >= [3] for batch in batches):
            raise DeviceError(
                "EL0004: Failed to allocate memory. Possible Cause: Available memory is insufficient."
            )
    if size() > 1:
        described = sorted(
            f"{op.name} {op.type} {[str(tensor.shape) for tensor in op.outputs]}"
            for op in ancestors
            if OWN_SCOPE not in op.name  # sender and receiver differ inside
        )
        text = f"{session._npu_graphs[key]} {key}" + "\n".join(described)
        _exchange().check(zlib.crc32(text.encode()) & 0xFFFFFF, key)


def _check_split(graph, ancestors):
    """Segments must end with the last of the fused sums, of which there is one for each gradient."""
    fused = graph.get_collection("simulated/fused")
    if split_strategy is None or split_strategy[0] != "idx" or not set(ancestors) & {t.op for t in fused}:
        return
    last = len(fused) - 1 + faults.has("split")
    if split_strategy[1][-1] != last:
        raise DeviceError(f"hcom: split index {split_strategy[1][-1]} of gradients 0 to {last}")


def _iterations(session, run, ancestors):
    """How often the device runs a graph."""
    options = session._npu_options
    if not any(op.name == LOOP_OP for op in ancestors):
        return 1
    if options.get("iterations_per_loop", 1) < 2:
        return 1
    unknown = [
        op.name
        for op in ancestors
        for tensor in op.outputs
        if tensor.dtype not in (tf.resource, tf.variant)
        and (op.type, tensor.value_index) != ("FusedBatchNormV3", 5)
        and not tensor.shape.is_fully_defined()
    ]
    if unknown:
        history.append(("unknown_shapes", sorted(unknown)[:5]))
        return 1
    if not options.get("enable_data_pre_proc"):
        raise DeviceError("every iteration would see the same batch: enable_data_pre_proc is off")
    if options.get("mix_compile_mode"):
        raise DeviceError("mix_compile_mode needs iterations_per_loop 1")
    names = ("iterations_per_loop", "loop_cond", "zero", "one")
    try:
        values = run([f"{LOOP_VARIABLES}{name}/Read/ReadVariableOp:0" for name in names])
    except (KeyError, ValueError, tf.errors.FailedPreconditionError):
        return 1
    last, done, zero, one = values
    if (zero, one) != (0, 1):
        return 1
    return max(1, int(last - done) + 1)


def _close(self):
    if getattr(self, "_npu_options", None) is not None and not self._npu_is_closed:
        self._npu_is_closed = True  # deleting a session closes it again
        history.append(("close",))
    _session_close(self)


# --- ranks ------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=None)
def _server():
    addresses = os.environ["SIMULATED_NPU_ADDRESSES"].split(",")
    if len(addresses) != size():
        raise DeviceError("ra rdev init failed ret[-17]: SIMULATED_NPU_ADDRESSES does not fit RANK_SIZE")
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=4)
    config.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
    server = tf.distribute.Server(
        tf.train.ClusterSpec({"worker": addresses}), job_name="worker", task_index=rank(), config=config
    )
    deadline = time.monotonic() + TIMEOUT_SECONDS
    for number, address in enumerate(addresses):
        while True:
            try:
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise DeviceError(f"EI0006: wait socket establish timeout, rank {number}") from None
                time.sleep(0.05)
    return server


class _Exchange:
    """Compares a number over ranks, in its own graph."""

    def __init__(self):
        with tf.Graph().as_default() as graph, tf.device(_device()):
            self._mine = tf.compat.v1.placeholder(tf.float32, [size()])
            self._all = collective_ops.all_reduce(tf.identity(self._mine), size(), 1, 1_000_000, "Add", "Id")
        config = tf.compat.v1.ConfigProto(device_filters=[f"/job:worker/task:{rank()}"])
        config.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
        self._session = tf.compat.v1.Session(_server().target, graph=graph, config=config)
        self._session._npu_options = None  # the newer adapter gives every session its options

    def check(self, number, what):
        mine = np.zeros(size(), np.float32)
        mine[rank()] = number
        limit = tf.compat.v1.RunOptions(timeout_in_ms=1000 * TIMEOUT_SECONDS)
        try:
            numbers = self._session.run(self._all, {self._mine: mine}, options=limit)
        except tf.errors.DeadlineExceededError:
            raise DeviceError(f"EI0006: rank {rank()} waits at {what}, other ranks do not come") from None
        if len(set(numbers.tolist())) > 1:
            raise DeviceError(f"EI0005: ranks compile different graphs: {numbers} at {what}")


@functools.lru_cache(maxsize=None)
def _exchange():
    return _Exchange()


session_lib.BaseSession.__init__ = _init
session_lib.BaseSession.run = _run
session_lib.BaseSession.close = _close
