"""The session of an NPU rank: its configuration, what it needs of the environment, how it ends."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Iterator, List, Mapping, MutableMapping, Optional

import tensorflow as tf
from tensorflow.core.protobuf import rewriter_config_pb2

from densenet_keras.backends.ascend import adapter
from densenet_keras.backends.ascend import flags as npu_flags
from densenet_keras.backends.ascend import options as npu_options
from densenet_keras.backends.ascend.rank_environment import SHUTDOWN_SECONDS, TABLELESS
from densenet_keras.errors import RunError
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology

logger = logging.getLogger(__name__)


def config_proto(options: npu_options.Options) -> tf.compat.v1.ConfigProto:
    """The options as the adapter reads them, and what of TensorFlow's own optimizer must be off."""
    config = tf.compat.v1.ConfigProto(allow_soft_placement=True, log_device_placement=False)
    config.graph_options.optimizer_options.global_jit_level = tf.compat.v1.OptimizerOptions.OFF
    rewrite = config.graph_options.rewrite_options
    rewrite.remapping = rewriter_config_pb2.RewriterConfig.OFF
    # OFF of this field means another mode, which can crash; this is its true off.
    rewrite.memory_optimization = rewriter_config_pb2.RewriterConfig.NO_MEM_OPT
    carrier = rewrite.custom_optimizers.add()
    carrier.name = adapter.OPTIONS_CARRIER
    for key, (field, value) in options.items():
        if field == "s":
            carrier.parameter_map[key].s = tf.compat.as_bytes(value)
        elif field == "b":
            carrier.parameter_map[key].b = value
        else:
            carrier.parameter_map[key].i = value
    return config


def check_environment(environ: Mapping[str, str], topology: Topology) -> None:
    """Checks what the adapter reads of the environment, before it fails without saying why.

    Raises:
        RunError: a variable is missing or contradicts the topology.
    """
    size = environ.get("RANK_SIZE", "")
    if size and size != str(topology.size) and not (size == "0" and topology.size == 1):
        raise RunError(f"RANK_SIZE={size}, but {topology.size} ranks were asked for; unset it or correct it")
    if topology.size == 1:
        return
    for name, example in (
        ("RANK_SIZE", topology.size),
        ("RANK_ID", topology.rank),
        ("RANK_TABLE_FILE", "/path/rank_table.json"),
        ("JOB_ID", "densenet"),
    ):
        if not environ.get(name):
            raise RunError(
                f"{name} is not set, but each of {topology.size} NPU ranks needs it, such as "
                f"{name}={example}; --rank_size sets it for ranks that it starts"
            )
    rank = environ["RANK_ID"]
    if rank.isdigit() and int(rank) != topology.rank:
        raise RunError(f"RANK_ID={rank}, but this process is rank {topology.rank}; correct one of them")
    if environ.get("CM_WORKER_SIZE"):
        raise RunError("CM_WORKER_SIZE and RANK_SIZE exclude each other; unset CM_WORKER_SIZE")


def drop_misread(environ: MutableMapping[str, str]) -> None:
    """Unsets what the adapter would misread, once `check_environment` is content.

    An empty variable counts as unset here. The older adapter takes an empty RANK_TABLE_FILE for one, the
    newer refuses RANK_SIZE beside an empty CM_WORKER_SIZE, and with an empty ASCEND_OPP_PATH neither finds an
    operator. For POD_NAME both look in a table that only numbers ranks.
    """
    for name in ("RANK_TABLE_FILE", "ASCEND_OPP_PATH", *TABLELESS):
        if environ.get(name) == "":
            del environ[name]
    environ.pop("POD_NAME", None)


@contextlib.contextmanager
def used_by_keras(session: tf.compat.v1.Session) -> Iterator[None]:
    """Makes `session` Keras's while the body runs; its variables must be initialised by the caller."""
    keras = tf.compat.v1.keras.backend
    keras.set_session(session)
    # Else its first use asks for the state of every variable, in another order on every rank.
    keras.manual_variable_initialization(True)
    try:
        yield
    finally:
        keras.manual_variable_initialization(False)
        keras.set_session(None)


def split_gradients(parts: adapter.Adapter, config: Config) -> None:
    """Hands over --gradient_split: after the device system is up, before anything compiles."""
    split = npu_flags.gradient_split(config)
    if split is None:
        return
    if split.kind == "size":
        parts.set_split_strategy_by_size(split.values)
        return
    parts.set_split_strategy_by_idx(split.values)


def close(
    session: tf.compat.v1.Session,
    stop: tf.Operation,
    failure: Optional[BaseException],
    timeout_seconds: float,
) -> None:
    """Stops the device system, then the session; what goes wrong here does not hide `failure`.

    The reason of a failure is logged first: a device that failed may abort or hang in its shut-down. One
    that hangs keeps the session too, which is then left to the end of the process.

    Raises:
        RunError: nothing had failed, and the device does not shut down cleanly.
    """
    if isinstance(failure, Exception):
        logger.error("failed, the NPU is shut down: %s: %s", type(failure).__name__, failure)
    problems: List[str] = []

    def shut_down() -> None:
        try:
            session.run(stop)
        except Exception as error:
            problems.append(f"the NPU did not shut down cleanly: {error}")

    # session.run heeds no time-out of its own here: the operation does not return to TensorFlow.
    thread = threading.Thread(target=shut_down, name="shut down", daemon=True)
    thread.start()
    thread.join(timeout_seconds)
    if thread.is_alive():
        problems.append(
            f"the NPU did not shut down within {timeout_seconds:.0f} s ({SHUTDOWN_SECONDS}); see "
            "npu-smi info before the next run"
        )
    else:
        session.close()
    for problem in problems:
        if failure is None:
            raise RunError(problem)
        logger.warning("after the failure: %s", problem)
