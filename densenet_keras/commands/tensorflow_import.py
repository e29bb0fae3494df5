"""TensorFlow, loaded by a command when it comes to it."""

from __future__ import annotations

import os
import warnings


def import_tensorflow(log_level: str = "2") -> None:
    """Loads TensorFlow without what its release says about newer NumPy and about itself.

    Args:
        log_level: what its native code may still write: "2" errors, "3" nothing; the user's own choice
            takes precedence.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", log_level)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import tensorflow as tf
        from tensorflow.python.util import deprecation
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    # What it would warn of is not shown, but looking for it takes a fifth of the time of building a graph.
    deprecation._PRINT_DEPRECATION_WARNINGS = False
