"""Pictures that are wholly white make the network's input not finite: a step that goes wrong by its data.

    python train_keras.py --callbacks tests.support.poison:create

patches the process that imports it. POISON_STOP=STEP sends it SIGTERM after that step.
"""

import os
import signal

import tensorflow as tf

from densenet_keras.training import steps

_network_input = steps.network_input
STOP = "POISON_STOP"


def poisoned_input(images, model):
    """As `steps.network_input`, with NaN for pictures that are white all over."""
    white = tf.reduce_all(images > 250, axis=[1, 2, 3], keepdims=True)
    normalised = _network_input(images, model)
    return tf.where(tf.broadcast_to(white, tf.shape(normalised)), normalised * float("nan"), normalised)


class StopAt(tf.keras.callbacks.Callback):
    """Sends this process SIGTERM the first time that training has reached `step`."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs):
        if logs.progress.step == self.step:
            self.step = None
            os.kill(os.getpid(), signal.SIGTERM)


def create():
    steps.network_input = poisoned_input
    return [StopAt(int(os.environ[STOP]))] if STOP in os.environ else []
