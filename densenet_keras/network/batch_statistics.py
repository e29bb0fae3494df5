"""Statistics of a batch that the layers of a dense block share.

Every layer of a block normalises all feature maps before it. Their mean and variance over the batch are the
same for each, and only gamma and beta differ: here they are computed once for every feature map, forward and
backward. Results equal those of separate normalisations to float32 rounding.
"""

from __future__ import annotations

from typing import Any, Callable, List, Tuple

import tensorflow as tf

_Gradients = Tuple[tf.Tensor, tf.Tensor, tf.Tensor]


class BatchStatistics:
    """Mean and variance over all but channels of ``[batch, height, width, channels] float32``."""

    def __init__(self, features: tf.Tensor) -> None:
        self._means: List[tf.Tensor] = []
        self._variances: List[tf.Tensor] = []
        self.append(features)

    def append(self, features: tf.Tensor) -> None:
        """Adds feature maps that later layers see behind those added before."""
        # With the mean taken off first: E[x^2] - E[x]^2 would cancel digits.
        mean, variance = tf.nn.moments(features, [0, 1, 2])
        self._means.append(mean)
        self._variances.append(variance)

    def normalise(
        self, norm: tf.keras.layers.BatchNormalization, features: tf.Tensor
    ) -> Tuple[tf.Tensor, tf.Tensor]:
        """Scale and shift ``[channels]`` of `norm` in training, its moving averages updated like Keras does.

        Args:
            norm: built, called by Keras at this moment, directly or through the layer that it is part of.
            features: all that was added so far, concatenated.
        """
        mean, variance = tf.concat(self._means, axis=0), tf.concat(self._variances, axis=0)
        count = tf.cast(tf.size(features) // tf.size(mean), tf.float32)
        unbiased = variance * (count / tf.maximum(count - 1.0, 1.0))
        for moving, value in ((norm.moving_mean, mean), (norm.moving_variance, unbiased)):
            change = (moving - value) * (1.0 - norm.momentum)
            # Keras takes an update that its layer's input does not lead to for one of no batch, and the
            # statistics come from the parts of that input. The identity is what it can follow.
            with tf.control_dependencies([tf.identity(features)]):
                norm.add_update(moving.assign_sub(change, read_value=False))
        scale = norm.gamma * tf.math.rsqrt(variance + norm.epsilon)
        return scale, norm.beta - mean * scale


@tf.custom_gradient
def scaled_relu(x: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor) -> Tuple[tf.Tensor, Callable[..., Any]]:
    """``relu(x * scale + shift)`` with channels last; its gradient sums over pixels in matrix products."""
    result = tf.nn.relu(x * scale + shift)

    def gradient(upstream: tf.Tensor) -> _Gradients:
        masked = tf.raw_ops.ReluGrad(gradients=upstream, features=result)
        return masked * scale, _sums(masked * x), _sums(masked)

    return result, gradient


def _sums(x: tf.Tensor) -> tf.Tensor:
    """Sums over all but channels: on a CPU half the time of `tf.reduce_sum`."""
    rows = tf.reshape(x, [-1, x.shape[-1]])
    return tf.reshape(tf.matmul(tf.fill([1, tf.shape(rows)[0]], 1.0), rows), [-1])
