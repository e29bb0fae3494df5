"""The only module that names the Ascend adapter's package.

Importing this module imports neither the adapter nor TensorFlow, so the command line can ask whether
the adapter is there.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

from densenet_keras.errors import RunError

PACKAGE = "npu_bridge"

# Names that both generations of the adapter export from the module that `load` returns.
NEEDED = ("npu_ops", "util", "hccl_ops", "NPUDistributedOptimizer")

REMEDY = (
    "run `source .../set_env.sh` of the CANN toolkit and of its TensorFlow plug-in in this shell, and "
    "check that the adapter was installed for this Python and for TensorFlow 1.15"
)


def is_available() -> bool:
    """Whether the adapter is installed; it is not imported to find out."""
    if PACKAGE in sys.modules:
        return True
    return importlib.util.find_spec(PACKAGE) is not None


def load() -> ModuleType:
    """The module that exports the adapter's optimizers, operations and helpers.

    Importing it may replace `tf.Session.__init__`, so only a process that runs on an NPU calls this.

    Raises:
        RunError: the adapter or one of its native libraries is missing or does not load.
    """
    try:
        module = importlib.import_module(PACKAGE + ".npu_init")
    except Exception as error:  # a native library that does not load surfaces as any kind of error
        raise RunError(
            f"the Ascend adapter {PACKAGE} cannot be used ({type(error).__name__}: {error}); {REMEDY}"
        ) from error
    # The adapter's own loader prints a failure and carries on: names are then missing, not raised.
    for name in NEEDED:
        if getattr(module, name, None) is None:
            raise RunError(
                f"the Ascend adapter {PACKAGE} was imported without its {name}, so a native library "
                f"did not load (its message is above); {REMEDY}"
            )
    return module
