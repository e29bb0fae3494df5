"""A session on the CPU of this machine, whatever accelerator it has: for what trains nothing."""

from __future__ import annotations

import contextlib
from typing import Iterator

import tensorflow as tf

from densenet_keras.backends.tensorflow import cuda_driver


def look_for_accelerators() -> None:
    """Lets TensorFlow look for GPUs now, without its complaint that there is none."""
    cuda_driver.gpu_count()


@contextlib.contextmanager
def session(graph: tf.Graph) -> Iterator[tf.compat.v1.Session]:
    """A session on `graph` that touches no device but the CPU."""
    look_for_accelerators()
    options = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
    with tf.compat.v1.Session(graph=graph, config=options) as opened:
        yield opened
