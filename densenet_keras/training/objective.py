"""What training minimises and evaluation counts."""

from __future__ import annotations

from typing import List, NamedTuple, Sequence

import tensorflow as tf


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Softmax cross-entropy of each example, ``[batch] float32``, in nats, without smoothing."""
    one_hot = tf.one_hot(labels, logits.shape[-1].value, dtype=tf.float32)
    return tf.nn.softmax_cross_entropy_with_logits_v2(labels=one_hot, logits=logits)


def smoothed_cross_entropy(logits: tf.Tensor, labels: tf.Tensor, smoothing: float) -> tf.Tensor:
    """Mean softmax cross-entropy of the batch, a float32 scalar.

    Args:
        logits: ``[batch, classes] float32``.
        labels: ``[batch] int32`` from 0.
        smoothing: share of each label spread evenly over all classes, the true one included
            (Szegedy et al. 2016, section 7; the formula of tf.losses.softmax_cross_entropy).
    """
    classes = logits.shape[-1].value
    target = tf.one_hot(
        labels,
        classes,
        on_value=1.0 - smoothing + smoothing / classes,
        off_value=smoothing / classes,
        dtype=tf.float32,
    )
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(labels=target, logits=logits))


def decayed_variables(variables: Sequence[tf.Variable], which: str) -> List[tf.Variable]:
    """The trainable variables that weight decay covers.

    Args:
        which: "all", as the original does, or "kernels": matrices and convolution filters only,
            which leaves out every bias, gamma and beta (they have one dimension).
    """
    if which == "all":
        return list(variables)
    return [variable for variable in variables if variable.shape.ndims > 1]


def l2_loss(variables: Sequence[tf.Variable]) -> tf.Tensor:
    """Half the sum of squares over all `variables`, a float32 scalar (zero for none)."""
    if not variables:
        return tf.constant(0.0)
    return tf.add_n([tf.nn.l2_loss(variable) for variable in variables])


class EvalSums(NamedTuple):
    """Sums over the real examples of one batch; means are taken once, after summing over all ranks."""

    top1: tf.Tensor  # int32 scalar, examples whose label has the largest logit
    top5: tf.Tensor  # int32 scalar, examples whose label is among the five largest
    images: tf.Tensor  # int32 scalar
    loss: tf.Tensor  # float32 scalar, cross-entropy without smoothing


def evaluation_sums(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> EvalSums:
    """Counts of a batch in which padding has weight 0 and every other example weight 1."""
    best = tf.nn.top_k(logits, k=min(5, logits.shape[-1].value)).indices
    hits = tf.cast(tf.equal(best, labels[:, tf.newaxis]), tf.int32)
    real = tf.cast(weights, tf.int32)
    return EvalSums(
        top1=tf.reduce_sum(hits[:, 0] * real),
        top5=tf.reduce_sum(tf.reduce_sum(hits, axis=1) * real),
        images=tf.reduce_sum(real),
        loss=tf.reduce_sum(cross_entropy(logits, labels) * weights),
    )
