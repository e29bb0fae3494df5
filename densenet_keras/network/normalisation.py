"""Batch normalisation and ReLU in training on a CPU, and their gradients, in half of TensorFlow's time.

Statistics of feature maps and gradients of normalisations are separate here, since a dense block shares the
statistics. Sums over pixels are products of matrices.
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf

from densenet_keras.network.constants import integer, integers, number

# In place of a gamma nearer to zero (one that weight decay has left without effect): what is multiplied by
# it can then be divided again. Gradients of feature maps move by this times their size, below rounding.
_SMALLEST_GAMMA = 1e-12
# Of a beta against its gamma. The gradient of gamma is a difference divided by gamma: up to here that loses
# four bits at most, beyond it is summed over pixels.
_LARGEST_BETA = 16.0
# From here on the depthwise form of a sum of products takes 0.5 to 0.9 of the processor time, at 32 1.7.
_DEPTHWISE_FROM_CHANNELS = 64


class Moments(NamedTuple):
    """Mean and variance over the batch, ``[channels] float32``."""

    mean: tf.Tensor
    variance: tf.Tensor


def without_mean(x: tf.Tensor, mean: tf.Tensor) -> tf.Tensor:
    """x with the means of its channels taken off, in the memory of x if nothing else reads it."""
    return tf.nn.bias_add(x, -mean)


class GradientSums(NamedTuple):
    """Sums over the batch of gradients with respect to x, moments held, ``[channels] float32``.

    They lead to the gradient through the moments (Ioffe and Szegedy 2015, section 3).
    """

    plain: tf.Tensor
    weighted: tf.Tensor  # by (x - mean) / (variance + epsilon)

    def of_moments(self) -> Moments:
        """The gradients with respect to the mean and the variance of x.

        Through the variance nothing reaches the mean: the mean of x - mean is zero.
        """
        return Moments(-self.plain, number(-0.5) * self.weighted)


def gradient_sums(of_moments: Moments) -> GradientSums:
    """The sums that lead to these gradients with respect to mean and variance."""
    return GradientSums(-of_moments.mean, number(-2.0) * of_moments.variance)


class Pixels:
    """Sums over batch, height and width of feature maps ``[batch, height, width, any] float32``.

    Args:
        features: any of that size.
    """

    def __init__(self, features: tf.Tensor) -> None:
        size = features.shape[:3]
        if size.is_fully_defined():
            batch, height, width = size.as_list()
            count = float(batch * height * width)
            self._one_by_count, self._minus_one_by_count = number(1.0 / count), number(-1.0 / count)
            self._unbiased = number(count / max(count - 1.0, 1.0))
        else:
            batch, height, width = tf.unstack(tf.shape(features)[:3])
            pixel_count = tf.cast(batch * height * width, tf.float32)
            self._one_by_count, self._minus_one_by_count = 1.0 / pixel_count, -1.0 / pixel_count
            self._unbiased = pixel_count / tf.maximum(pixel_count - 1.0, 1.0)
        self._area = height * width
        self._ones = tf.fill([batch, 1, self._area], 1.0)

    def sums(self, x: tf.Tensor) -> tf.Tensor:
        """``[channels]``, image by image and then over images, which also loses fewer digits."""
        shape = [-1, self._area, x.shape[-1]]
        rows = tf.reshape(x, shape if isinstance(self._area, tf.Tensor) else integers(shape))
        return tf.reduce_sum(tf.matmul(self._ones, rows), axis=integers([0, 1]))

    def sums_of_products(self, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        """``[channels]``: sums of ``a * b``, both of one shape."""
        channels = int(a.shape[-1])
        if channels < _DEPTHWISE_FROM_CHANNELS:
            return self.sums(a * b)
        # The gradient of a 1x1 depthwise kernel is just that, and writes no product to memory.
        products = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=a,
            filter_sizes=integers([1, 1, channels, 1]),
            out_backprop=b,
            strides=[1, 1, 1, 1],
            padding="VALID",
        )
        return tf.reshape(products, integers([channels]))

    def moments(self, x: tf.Tensor) -> Moments:
        # With the mean taken off first: E[x^2] - E[x]^2 would cancel digits.
        mean = self.sums(x) * self._one_by_count
        return Moments(mean, self.sums(tf.math.squared_difference(x, mean)) * self._one_by_count)

    def centred(self, x: tf.Tensor) -> Tuple[tf.Tensor, Moments]:
        """x `without_mean`, and the moments of x."""
        mean = self.sums(x) * self._one_by_count
        rest = without_mean(x, mean)
        return rest, Moments(mean, self.sums_of_products(rest, rest) * self._one_by_count)

    def unbiased(self, variance: tf.Tensor) -> tf.Tensor:
        """A variance of `moments` with Bessel's correction."""
        return variance * self._unbiased

    def through_moments(self, x: tf.Tensor, mean: Optional[tf.Tensor], sums: GradientSums) -> tf.Tensor:
        """The gradient of `x` through its moments: ``-(plain + weighted * (x - mean)) / pixels``.

        Args:
            mean: of x; None: it is taken off already.
        """
        factor = sums.weighted * self._minus_one_by_count
        shift = sums.plain * self._minus_one_by_count
        return tf.nn.bias_add(x * factor, shift if mean is None else shift - factor * mean)


class NormWeights(NamedTuple):
    """gamma and beta of a normalisation, and what holds for all of its channels."""

    gamma: tf.Tensor  # [channels] float32, no element nearer to zero than _SMALLEST_GAMMA
    beta: tf.Tensor  # [channels] float32
    sign: tf.Tensor  # [channels] float32: of gamma, 1 or -1
    has_negative: tf.Tensor  # bool: any sign is -1
    is_flat: tf.Tensor  # bool: any gamma is too small against its beta for `NormalisedRelu.gradients`


def norm_weights(pairs: Sequence[Sequence[tf.Tensor]]) -> List[NormWeights]:
    """Of several normalisations, in about as many operations as of one.

    Args:
        pairs: gamma and beta, ``[channels] float32``, of each.
    """
    gammas, betas = zip(*pairs)
    sizes = [int(gamma.shape[0]) for gamma in gammas]
    norm_of_channel = tf.constant(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes))
    gamma, beta = (tf.concat(vectors, axis=integer(0)) for vectors in (gammas, betas))
    smallest = number(_SMALLEST_GAMMA)
    gamma = tf.compat.v2.where(tf.less(tf.abs(gamma), smallest), smallest, gamma)
    excess = tf.abs(beta) - number(_LARGEST_BETA) * tf.abs(gamma)
    has_negative = tf.less(tf.math.segment_min(gamma, norm_of_channel), number(0.0))
    is_flat = tf.greater(tf.math.segment_max(excess, norm_of_channel), number(0.0))
    vectors = split(gamma, sizes), betas, split(tf.sign(gamma), sizes)
    flags = (tf.unstack(flag, num=len(sizes)) for flag in (has_negative, is_flat))
    return [NormWeights(*parts) for parts in zip(*vectors, *flags)]


class NormalisedRelu:
    """``relu(gamma * (x - mean) / sqrt(variance + epsilon) + beta)`` before a convolution, and its gradients.

    With the scale, gamma over the root, that is ``abs(scale) * relu(sign * x + shift)``. The convolution
    takes the factor into its kernel, for one pass less over the feature maps.

    Args:
        weights: gamma and beta.
        kernel: of the convolution, ``[height, width, channels, filters]``.
        moments: of x.
        centred: whether the mean is taken off x already.

    Kernels of the right size are computed when they are asked for, so that none waits for its gradient.
    """

    def __init__(
        self,
        weights: NormWeights,
        kernel: tf.Tensor,
        moments: Moments,
        epsilon: float,
        centred: bool = False,
    ) -> None:
        self.moments, self._weights = moments, weights
        self.mean = None if centred else moments.mean
        self._inverse = tf.math.rsqrt(moments.variance + number(epsilon))
        self._scale = weights.gamma * self._inverse
        size = weights.sign * self._scale
        shift = weights.beta / size
        self._shift = shift if centred else shift - weights.sign * moments.mean
        self._size = tf.reshape(size, integers([-1, 1]))
        self._kernel = kernel

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """The result over ``abs(scale)``."""
        # A branch that is not taken costs nothing: gammas are seldom negative.
        as_it_is, flipped = tf.raw_ops.Switch(data=x, pred=self._weights.has_negative)
        signed = tf.raw_ops.Merge(inputs=[as_it_is, flipped * self._weights.sign]).output
        return tf.nn.relu(tf.nn.bias_add(signed, self._shift))

    def kernel(self) -> tf.Tensor:
        """The kernel for what a call gives: times ``abs(scale)``."""
        return self._kernel * self._size

    def gradient_kernel(self, upstream: tf.Tensor) -> tf.Tensor:
        """The kernel with which the gradient of the convolution is that of x: times the scale.

        Args:
            upstream: that gradient behind the convolution, before which it is not computed.
        """
        with tf.control_dependencies([upstream]):
            return self._kernel * tf.reshape(self._scale, integers([-1, 1]))

    def gradients(
        self, scaled: tf.Tensor, x: tf.Tensor, of_kernel: tf.Tensor, pixels: Pixels
    ) -> Tuple[List[tf.Tensor], GradientSums]:
        """With respect to gamma, beta and the kernel it was made with; and the sums for those of the moments.

        Args:
            scaled: the gradient with respect to x through this alone, moments held: that of the result,
                zero where the result is, times the scale.
            of_kernel: the gradient with respect to `kernel()`.
        """
        of_kernel *= self._size
        total = pixels.sums(scaled)
        of_beta = total / self._scale
        # Wanted are the sums over pixels of scaled * (x - mean). The result is scale * (x - mean) + beta
        # wherever its gradient is not zero, and the sums of the two's products are those of the kernel with
        # its gradient, since a convolution is linear.
        products = tf.reduce_sum(self._kernel * of_kernel, axis=integers([0, 1, 3]))
        from_kernel = products - self._weights.beta * of_beta
        is_flat = self._weights.is_flat
        _, flat_scaled = tf.raw_ops.Switch(data=scaled, pred=is_flat)
        _, flat_x = tf.raw_ops.Switch(data=x, pred=is_flat)
        over_pixels = pixels.sums_of_products(flat_scaled, flat_x)
        if self.mean is not None:
            over_pixels -= self.mean * total
        from_kernel, _ = tf.raw_ops.Switch(data=from_kernel, pred=is_flat)
        weighted = tf.raw_ops.Merge(inputs=[from_kernel, over_pixels]).output
        normalised = weighted * self._inverse
        gradients = [normalised / self._scale, of_beta, of_kernel]
        return gradients, GradientSums(total, normalised * self._inverse)


def split(x: tf.Tensor, sizes: Sequence[int]) -> List[tf.Tensor]:
    """Parts of a vector."""
    parts: List[tf.Tensor] = tf.split(x, integers(sizes), axis=integer(0), num=len(sizes))
    return parts


def masked(upstream: tf.Tensor, result: tf.Tensor) -> tf.Tensor:
    """`upstream` where the `result` of a ReLU is above zero: in 0.6 of the time of ReluGrad."""
    return tf.raw_ops.LeakyReluGrad(gradients=upstream, features=result, alpha=0.0)
