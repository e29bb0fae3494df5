"""Variables of a TensorFlow checkpoint, read by TensorFlow, which checks what it reads."""

from __future__ import annotations

import numpy as np

from densenet_keras.network.weights.tensors import Tensors, damaged


def read(prefix: str) -> Tensors:
    """The variables of checkpoint `prefix`, the name of its files without `.index`.

    Raises:
        UsageError: it cannot be read.
    """
    import tensorflow as tf  # only where there is such a checkpoint: a command line starts without it

    try:
        reader = tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, ValueError) as error:
        raise damaged(prefix, _first_line(error)) from error

    def read_one(name: str) -> np.ndarray:
        try:
            array: np.ndarray = np.asarray(reader.get_tensor(name))
            return array
        except (tf.errors.OpError, ValueError) as error:
            raise damaged(prefix, f"{name}: {_first_line(error)}") from error

    shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    return Tensors("TensorFlow checkpoint", shapes, read_one)


def _first_line(error: Exception) -> str:
    return (getattr(error, "message", None) or str(error)).splitlines()[0]
