"""TensorFlow, loaded by a command when it comes to it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import warnings
from typing import Any, Iterator, List


def import_tensorflow(log_level: str = "2") -> None:
    """Loads TensorFlow without what its release says about newer NumPy and about itself.

    Args:
        log_level: what its native code may still write: "2" errors, "3" nothing; the user's own choice
            takes precedence.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", log_level)
    with warnings.catch_warnings(), ctrl_c_remembered():
        warnings.simplefilter("ignore", FutureWarning)
        import tensorflow as tf
        from tensorflow.python.util import deprecation
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    # What it would warn of is not shown, but looking for it takes a fifth of the time of building a graph.
    deprecation._PRINT_DEPRECATION_WARNINGS = False


@contextlib.contextmanager
def ctrl_c_remembered() -> Iterator[None]:
    """Ends in a KeyboardInterrupt if ctrl-C came meanwhile, whatever became of the one in the body.

    Libraries that import modules from C, as TensorFlow does while it is loaded, drop what an import raises.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    came: List[int] = []

    def remember(signum: int, frame: Any) -> None:
        came.append(signum)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt
