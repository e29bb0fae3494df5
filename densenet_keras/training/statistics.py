"""Moving statistics of batch normalisation on several ranks.

Each rank normalises by its own batch, so its moving statistics are its own too. They decide nothing in
training; what is saved and evaluated is their mean over ranks, which every rank then has. Averaged in every
step (in one buffer, 0.3 MB for DenseNet-121) nothing depends on when a run saves. Averaged before saving
only, a step is shorter; and since a mean of moving averages is the moving average of the means, the
statistics are the same to rounding.
"""

from __future__ import annotations

from typing import List, Optional, Sequence

import tensorflow as tf

from densenet_keras.backends.base import Backend
from densenet_keras.settings.config import Config

STEP, SAVE = "step", "save"  # --statistics_average


def in_each_step(
    model: tf.keras.Model, updates: Sequence[tf.Operation], config: Config, backend: Backend
) -> List[tf.Variable]:
    """The variables that a training step makes equal on all ranks, of those that `updates` change."""
    return _changed(model, updates, backend) if config.device.statistics_average == STEP else []


def before_saving(model: tf.keras.Model, config: Config, backend: Backend) -> Optional[tf.Operation]:
    """What all ranks run before they save or evaluate, if statistics are averaged no earlier."""
    if config.device.statistics_average == STEP:
        return None
    variables = _changed(model, model.get_updates_for(model.inputs), backend)
    if not variables:
        return None
    with tf.name_scope("average_statistics"):
        mean = backend.all_reduce_mean([values(variables, [], backend)])[0]
        return tf.group(*assignments(variables, mean, backend))


def values(variables: Sequence[tf.Variable], after: Sequence[tf.Operation], backend: Backend) -> tf.Tensor:
    """``[elements] float32``: all variables, one after another, read when `after` has run."""
    with backend.full_precision(), tf.control_dependencies(after):
        return tf.concat([tf.reshape(variable.read_value(), [-1]) for variable in variables], axis=0)


def assignments(variables: Sequence[tf.Variable], flat: tf.Tensor, backend: Backend) -> List[tf.Operation]:
    """The inverse of `values`."""
    with backend.full_precision():
        parts = tf.split(flat, [variable.shape.num_elements() for variable in variables])
        return [
            variable.assign(tf.reshape(part, variable.shape), read_value=False)
            for variable, part in zip(variables, parts)
        ]


def _changed(model: tf.keras.Model, updates: Sequence[tf.Operation], backend: Backend) -> List[tf.Variable]:
    """Not all that is not trainable: weights of frozen layers are neither, and must stay what they are."""
    if backend.topology.size == 1:
        return []
    changed = {update.inputs[0].op for update in updates}
    return [variable for variable in model.non_trainable_weights if variable.handle.op in changed]
