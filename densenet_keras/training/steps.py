"""The training step and the evaluation step as graph nodes."""

from __future__ import annotations

from typing import Callable, List, Sequence, Tuple

import numpy as np
import tensorflow as tf

from densenet_keras.backends.base import Backend, Step
from densenet_keras.data import images as preprocessing
from densenet_keras.settings.config import Config
from densenet_keras.training import objective

BuildModel = Callable[[tf.Tensor], tf.keras.Model]


def network_input(images: tf.Tensor, dtype: str) -> tf.Tensor:
    """``[batch, height, width, 3] uint8`` to normalised float32, rounded to `dtype` on the way."""
    normalised = preprocessing.normalize(images)
    name = dtype.replace("tf.", "")
    if name == "float32":
        return normalised
    return tf.cast(tf.cast(normalised, name), tf.float32)


def build_train_step(
    build_model: BuildModel,
    batch: Tuple[tf.Tensor, tf.Tensor],
    config: Config,
    learning_rate: Callable[[tf.Tensor], tf.Tensor],
    backend: Backend,
) -> Tuple[tf.keras.Model, Step]:
    """The model on one training batch, and one update of it.

    The learning phase must already be fixed to 1, so that batch normalisation appears once, in
    training form. Its moving averages are no members of UPDATE_OPS in tf.keras, hence
    `get_updates_for`, which leaves out updates bound to any other input.

    Args:
        batch: images ``[batch, height, width, 3] uint8`` and labels ``[batch] int32``.
        learning_rate: from the global step to the rate of the update that it is about to make.
    """
    images, labels = batch
    inputs = network_input(images, config.model.dtype)
    model = build_model(inputs)
    settings = config.optimizer
    global_step = tf.train.get_or_create_global_step()
    with backend.full_precision():
        rate = learning_rate(tf.cast(global_step, tf.int32))
        loss = objective.smoothed_cross_entropy(model.outputs[0], labels, settings.label_smoothing)
        decayed = objective.decayed_variables(model.trainable_variables, settings.weight_decay_on)
        total_loss = loss + settings.weight_decay * objective.l2_loss(decayed)
    optimizer = tf.train.MomentumOptimizer(rate, settings.momentum, use_nesterov=settings.use_nesterov)
    step = backend.build_step(
        optimizer=optimizer,
        losses={"loss": loss, "total_loss": total_loss},
        minimize="total_loss",
        variables=model.trainable_variables,
        global_step=global_step,
        updates=_shared_statistics(model, model.get_updates_for(inputs), backend),
        metrics={"learning_rate": rate},
    )
    return model, step


def _shared_statistics(
    model: tf.keras.Model, updates: Sequence[tf.Operation], backend: Backend
) -> List[tf.Operation]:
    """Updates of the moving statistics after which they are equal on all ranks.

    Each rank normalises by its own batch, so its moving statistics are its own too. Averaged in every
    step (in one buffer, 0.3 MB for DenseNet-121) they are those of the batches of all ranks, whichever
    rank saves or evaluates, and nothing depends on when it does.
    """
    statistics = model.non_trainable_weights
    if backend.topology.size == 1 or not statistics:
        return list(updates)
    with tf.control_dependencies(updates):
        flat = tf.concat([tf.reshape(variable.read_value(), [-1]) for variable in statistics], axis=0)
    mean = backend.all_reduce_mean([flat])[0]
    parts = tf.split(mean, [variable.shape.num_elements() for variable in statistics])
    return [
        variable.assign(tf.reshape(part, variable.shape), read_value=False)
        for variable, part in zip(statistics, parts)
    ]


def build_eval_step(
    logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, backend: Backend
) -> objective.EvalSums:
    """Sums of one evaluation batch; see `objective.evaluation_sums`."""
    with backend.full_precision():
        return objective.evaluation_sums(logits, labels, weights)


class HostSum:
    """Sums small host-side vectors over ranks, outside the training step.

    The nodes are built once, so every call runs the same graph, and all ranks must call it at the
    same points.
    """

    def __init__(self, backend: Backend, integers: int, floats: int) -> None:
        self._single = backend.topology.size == 1
        if self._single:
            return
        self._integers = tf.placeholder(tf.int32, [integers])
        self._floats = tf.placeholder(tf.float32, [floats])
        self._sums = backend.all_reduce_sum([self._integers, self._floats])

    def __call__(
        self, session: tf.Session, integers: Sequence[int], floats: Sequence[float]
    ) -> Tuple[np.ndarray, np.ndarray]:
        """Sums over ranks, int64 and float64 vectors."""
        if self._single:
            return np.asarray(integers, np.int64), np.asarray(floats, np.float64)
        feed = {self._integers: integers, self._floats: floats}
        sums = session.run(self._sums, feed_dict=feed)
        return sums[0].astype(np.int64), sums[1].astype(np.float64)
