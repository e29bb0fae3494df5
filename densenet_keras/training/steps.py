"""The training step and the evaluation step as graph nodes."""

from __future__ import annotations

import functools
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import tensorflow as tf

from densenet_keras.backends.base import Backend, Step
from densenet_keras.data import images as preprocessing
from densenet_keras.network.folding import folded_logits
from densenet_keras.network.variants import HEAD
from densenet_keras.settings.config import Config, ModelConfig
from densenet_keras.training import objective, statistics
from densenet_keras.training.divergence import GRADIENT_NORM, LONG_GRADIENTS

BuildModel = Callable[[tf.Tensor], tf.keras.Model]


class StepParts(NamedTuple):
    """What a training step is made of.

    Attributes:
        losses: name to float32 scalar of the local batch; averaged over ranks for the metrics.
        minimize: the key of the loss to differentiate.
        variables: trainable variables, float32.
        updates: moving-average updates that belong to the step.
        statistics: variables that `updates` change, to be averaged over ranks in the step.
        metrics: further scalars, already equal on all ranks (the learning rate); their values in a run of
            the step are those before its update.
        transform: changes the gradients, averaged over ranks, before they are applied.
        gradient_norm_limit: a longer gradient is counted; None: its length is not computed.
    """

    losses: Dict[str, tf.Tensor]
    minimize: str
    variables: Sequence[tf.Variable]
    updates: Sequence[tf.Operation]
    metrics: Dict[str, tf.Tensor]
    transform: Callable[[List[tf.Tensor]], List[tf.Tensor]] = list
    gradient_norm_limit: Optional[float] = None
    statistics: Sequence[tf.Variable] = ()


def network_input(images: tf.Tensor, model: ModelConfig) -> tf.Tensor:
    """``[batch, height, width, 3] uint8`` RGB to float32 as `model` wants it, rounded to its dtype."""
    normalised = preprocessing.normalize(images, model.preprocessing)
    name = model.dtype.replace("tf.", "")
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
    training form. Its moving averages are not in UPDATE_OPS in tf.keras, hence
    `get_updates_for`, which leaves out updates bound to any other input.

    Args:
        batch: images ``[batch, height, width, 3] uint8`` and labels ``[batch] int32``.
        learning_rate: from the global step to the rate of the update that it is about to make.
    """
    images, labels = batch
    inputs = network_input(images, config.model)
    model = build_model(inputs)
    settings = config.optimizer
    global_step = tf.train.get_or_create_global_step()
    with backend.full_precision():
        rate = learning_rate(tf.cast(global_step, tf.int32))
        loss = objective.smoothed_cross_entropy(model.outputs[0], labels, settings.label_smoothing)
        decayed = objective.decayed_variables(model.trainable_variables, settings.weight_decay_on)
        total_loss = loss + settings.weight_decay * objective.l2_loss(decayed)
    optimizer = tf.train.MomentumOptimizer(rate, settings.momentum, use_nesterov=settings.use_nesterov)
    updates = model.get_updates_for(inputs)
    parts = StepParts(
        losses={"loss": loss, "total_loss": total_loss},
        minimize="total_loss",
        variables=model.trainable_variables,
        updates=updates,
        statistics=statistics.in_each_step(model, updates, config, backend),
        metrics={"learning_rate": rate},
        transform=functools.partial(
            _faster_head, model.trainable_variables, config.finetune.head_lr_multiplier
        ),
        gradient_norm_limit=config.run.gradient_norm_limit,
    )
    return model, build_step(backend, optimizer, parts, global_step)


def build_step(
    backend: Backend,
    optimizer: tf.compat.v1.train.Optimizer,
    parts: StepParts,
    global_step: tf.Variable,
) -> Step:
    """One training step: gradients of a loss, averaged over ranks, applied once.

    This is the one place that knows the order of things in a step; a backend only wraps the optimizer and
    averages.

    Raises:
        ValueError: a variable that the loss does not depend on, or that is not float32.
    """
    wrapped = backend.wrap_optimizer(optimizer)
    loss = parts.losses[parts.minimize]
    # With TensorFlow's default no gradient of an operation is used before all of them are there: that of the
    # images, which nobody needs, is computed as well. NPUs get the graph that every script gives them.
    gate = optimizer.GATE_NONE if backend.rearranges else optimizer.GATE_OP
    pairs = wrapped.compute_gradients(loss, var_list=list(parts.variables), gate_gradients=gate)
    _check_gradients(pairs, loss)
    names = sorted(parts.losses)
    gradients, means, averaged = backend.exchange(
        [gradient for gradient, _ in pairs],
        [parts.losses[name] for name in names],
        [statistics.values(parts.statistics, parts.updates, backend)] if parts.statistics else [],
    )
    scalars = dict(zip(names, means))
    # Identities, so that each metric is read before the update changes what it depends on.
    scalars.update((name, tf.identity(value)) for name, value in parts.metrics.items())
    if parts.gradient_norm_limit is not None:
        with backend.full_precision():
            scalars.update(_gradient_norm(gradients, parts.gradient_norm_limit))
    with tf.control_dependencies(list(scalars.values())):
        update = wrapped.apply_gradients(
            list(zip(parts.transform(gradients), parts.variables)), global_step=backend.applied_steps
        )
    update = getattr(update, "op", update)
    counted = backend.count_step(update)
    with tf.control_dependencies([update]):  # the global step last: metrics are functions of it
        advance = tf.compat.v1.assign_add(global_step, 1)
    # The moving averages join here and not as control dependencies of the update: loss scaling puts the
    # update into a branch, and a skipped step still has a batch to average.
    shared = statistics.assignments(parts.statistics, averaged[0], backend) if averaged else []
    done = [advance, update, *parts.updates, *shared, *counted]
    return Step(train_op=tf.group(*done, name="train_step"), metrics=scalars)


def _gradient_norm(gradients: Sequence[tf.Tensor], limit: float) -> Dict[str, tf.Tensor]:
    """The length of the gradient, and how many since the start of this process were longer or not finite.

    A count, because of several steps in one session.run the host sees the metrics of the last alone. In a
    local variable: it is no part of the state that a checkpoint holds.
    """
    norm = tf.global_norm(list(gradients))
    count = tf.compat.v1.Variable(
        0.0,
        trainable=False,
        use_resource=True,
        collections=[tf.compat.v1.GraphKeys.LOCAL_VARIABLES],
        name=LONG_GRADIENTS,
    )
    fits = tf.less_equal(norm, limit)  # false of NaN
    return {GRADIENT_NORM: norm, LONG_GRADIENTS: count.assign_add(tf.where(fits, 0.0, 1.0))}


def _faster_head(
    variables: Sequence[tf.Variable], multiplier: float, gradients: List[tf.Tensor]
) -> List[tf.Tensor]:
    """`gradients` with those of the classifier times `multiplier`.

    Momentum is linear in the gradients, so this is the classifier's learning rate times `multiplier`.
    """
    if multiplier == 1.0:
        return gradients
    return [
        gradient * multiplier if variable.op.name.startswith(HEAD + "/") else gradient
        for gradient, variable in zip(gradients, variables)
    ]


def _check_gradients(pairs: Sequence[Tuple[tf.Tensor, tf.Variable]], loss: tf.Tensor) -> None:
    missing = [variable.name for gradient, variable in pairs if gradient is None]
    if missing:
        raise ValueError(
            f"{loss.name} does not depend on {len(missing)} of {len(pairs)} variables: "
            f"{', '.join(missing[:5])}; leave them out of the trainable variables"
        )
    for _, variable in pairs:
        if variable.dtype.base_dtype != tf.float32:
            raise ValueError(f"{variable.name} is {variable.dtype.name}; trainable variables are float32")


def inference_logits(model: tf.keras.Model, images: tf.Tensor, backend: Backend) -> tf.Tensor:
    """``[batch, classes] float32``: `model` in inference on `network_input`, as the backend computes it best.

    With the learning phase fixed to 0, a model built on `images` is in that form itself.
    """
    if backend.rearranges:
        return folded_logits(model, images, for_this_cpu=True)
    if images is model.inputs[0]:
        return model.outputs[0]
    return model(images, training=False)


def build_eval_step(
    logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, backend: Backend
) -> objective.EvalSums:
    """Sums of one evaluation batch; see `objective.evaluation_sums`."""
    with backend.full_precision():
        return objective.evaluation_sums(logits, labels, weights)
