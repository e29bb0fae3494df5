"""The Ascend adapter as it is installed: the only module that names its packages and its loop.

Importing this module imports neither the adapter nor TensorFlow, so the command line can ask whether
the adapter is there. What is used here exists in both generations of the adapter, the one of CANN 3 and
the one of CANN 9, with the same meaning.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Callable, ContextManager, Iterator, Tuple

from densenet_keras.errors import RunError

PACKAGE = "npu_bridge"

# The compiler turns the graph into a loop if, and only if, a node has exactly this full name.
LOOP_OP = "IterationOp"

# The session options travel in the parameter map of a custom optimizer of this name.
OPTIONS_CARRIER = "NpuOptimizer"

# Only the newer generation has it.
_NEWER_NAME = "npu_config_proto"

_NEEDED = (
    "npu_ops",
    "util",
    "npu_scope",
    "hccl_ops",
    "NPUDistributedOptimizer",
    "NPULossScaleOptimizer",
    "FixedLossScaleManager",
    "ExponentialUpdateLossScaleManager",
    "set_split_strategy_by_idx",
    "set_split_strategy_by_size",
)

_REMEDY = (
    "run `source .../set_env.sh` of the CANN toolkit and of its TensorFlow plug-in in this shell, and "
    "check that the adapter was installed for this Python and for TensorFlow 1.15"
)


@dataclass(frozen=True)
class Adapter:
    """The parts of the loaded adapter that a rank uses."""

    is_newer: bool
    folder: str  # of its Python files; operations built from there are its own business
    initialize_system: Callable[[], Any]  # an operation; nothing may run on the device before it
    shutdown_system: Callable[[], Any]  # an operation
    set_iteration_per_loop: Callable[..., Any]  # (session, train operation, iterations) -> operation
    all_reduce: Callable[..., Any]  # (tensor, "sum", fusion=) -> tensor
    broadcast: Callable[..., Any]  # (list of tensors, root rank) -> list of tensors
    distributed_optimizer: Callable[..., Any]
    loss_scale_optimizer: Callable[..., Any]
    fixed_loss_scale: Callable[..., Any]
    dynamic_loss_scale: Callable[..., Any]
    keep_dtype_scope: Callable[[], ContextManager[None]]
    set_split_strategy_by_idx: Callable[..., Any]
    set_split_strategy_by_size: Callable[..., Any]


def is_available() -> bool:
    """Whether the adapter is installed; it is not imported to find out."""
    if PACKAGE in sys.modules:
        return True
    return importlib.util.find_spec(PACKAGE) is not None


def load() -> Adapter:
    """Imports the adapter; only a process that runs on an NPU calls it.

    Raises:
        RunError: the adapter or one of its native libraries is missing or does not load.
    """
    try:
        with _sessions_as_they_are():
            module = importlib.import_module(PACKAGE + ".npu_init")
    except Exception as error:  # a native library that does not load surfaces as any kind of error
        raise RunError(
            f"the Ascend adapter {PACKAGE} cannot be used ({type(error).__name__}: {error}); {_REMEDY}"
        ) from error
    # The adapter's own loader prints a failure and carries on: names are then missing, not raised.
    for name in _NEEDED:
        if getattr(module, name, None) is None:
            raise RunError(
                f"the Ascend adapter {PACKAGE} was imported without its {name}, so a native library "
                f"did not load (its message is above); {_REMEDY}"
            )
    return _parts(module)


@contextlib.contextmanager
def _sessions_as_they_are() -> Iterator[None]:
    """Undoes what the newer adapter's import does to TensorFlow's sessions: all of them would run on the NPU.

    Those that only decode pictures too, and the first of them would start the device, with the adapter's
    defaults in place of this run's options. The one session that is meant says so itself, see `session`.
    """
    import tensorflow as tf

    kinds: Tuple[Any, ...] = (tf.compat.v1.Session, tf.compat.v1.InteractiveSession)
    before = [kind.__init__ for kind in kinds]
    try:
        yield
    finally:
        for kind, begin in zip(kinds, before):
            kind.__init__ = begin


def _parts(module: ModuleType) -> Adapter:
    names: Any = module
    return Adapter(
        is_newer=hasattr(module, _NEWER_NAME),
        folder=os.path.dirname(os.path.abspath(sys.modules[PACKAGE].__file__ or "")),
        initialize_system=names.npu_ops.initialize_system,
        shutdown_system=names.npu_ops.shutdown_system,
        set_iteration_per_loop=names.util.set_iteration_per_loop,
        all_reduce=names.hccl_ops.allreduce,
        broadcast=names.hccl_ops.broadcast,
        distributed_optimizer=names.NPUDistributedOptimizer,
        loss_scale_optimizer=names.NPULossScaleOptimizer,
        fixed_loss_scale=names.FixedLossScaleManager,
        dynamic_loss_scale=names.ExponentialUpdateLossScaleManager,
        keep_dtype_scope=names.npu_scope.keep_dtype_scope,
        set_split_strategy_by_idx=names.set_split_strategy_by_idx,
        set_split_strategy_by_size=names.set_split_strategy_by_size,
    )
