"""The session of an NPU rank: its configuration, what it needs of the environment, how it ends."""

from __future__ import annotations

import contextlib
import logging
from typing import Iterator, Mapping

import tensorflow as tf
from tensorflow.core.protobuf import rewriter_config_pb2

from densenet_keras.backends.ascend import adapter
from densenet_keras.backends.ascend import flags as npu_flags
from densenet_keras.backends.ascend import options as npu_options
from densenet_keras.errors import RunError, UsageError
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
    for name, example in (("RANK_SIZE", topology.size), ("RANK_ID", topology.rank),
                          ("RANK_TABLE_FILE", "/path/rank_table.json"), ("JOB_ID", "densenet")):
        if not environ.get(name):
            raise RunError(f"{name} is not set, but each of {topology.size} NPU ranks needs it, such as "
                           f"{name}={example}; --rank_size sets it for ranks that it starts")
    rank = environ["RANK_ID"]
    if rank.isdigit() and int(rank) != topology.rank:
        raise RunError(f"RANK_ID={rank}, but this process is rank {topology.rank}; correct one of them")
    if environ.get("CM_WORKER_SIZE"):
        raise RunError("CM_WORKER_SIZE and RANK_SIZE exclude each other; unset CM_WORKER_SIZE")


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


def split_gradients(parts: adapter.Adapter, config: Config, gradients: int) -> None:
    """Hands over --gradient_split: after the device system is up, before anything compiles.

    Raises:
        UsageError: the last index is not that of the last of `gradients`.
    """
    split = npu_flags.gradient_split(config)
    if split is None:
        return
    if split.kind == "size":
        parts.set_split_strategy_by_size(split.values)
        return
    if split.values[-1] != gradients - 1:
        raise UsageError(
            f"--gradient_split idx ends with {split.values[-1]}; the last of {gradients} gradients is "
            f"{gradients - 1}"
        )
    parts.set_split_strategy_by_idx(split.values)


def close(session: tf.compat.v1.Session, stop: tf.Operation, failed: bool) -> None:
    """Stops the device system, then the session; a failure here does not hide an earlier one."""
    try:
        session.run(stop)
    except Exception as error:
        if not failed:
            raise RunError(f"the NPU did not shut down cleanly: {error}") from error
        logger.warning("after the failure the NPU did not shut down cleanly either: %s", error)
    finally:
        session.close()
