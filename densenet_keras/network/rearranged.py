"""Dense blocks and transitions in the form that takes a CPU the least time to train.

They compute what `layers` computes, results and gradients equal to float32 rounding, with less work:

- The mean and variance of a feature map are the same for all layers behind it: they are computed once, and
  so is the gradient through them.
- The gradient before a normalisation is its scale times the gradient behind it. The scale is put into the
  kernel of the convolution whose gradient that is: [channels] numbers instead of feature maps.
- A transition averages pixels before its 1x1 convolution instead of behind it, for a quarter of the work.
- Sums over pixels are products of matrices, in half the time of TensorFlow's reductions.

A whole block has one gradient function, which adds the gradients of the feature maps layer by layer. From
TensorFlow's own, the gradients of all layers would have to be added at once, or copied twice.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import tensorflow as tf

from densenet_keras.network.convolutions import input_gradient, kernel_gradient
from densenet_keras.network.recompute import held

# In place of a scale nearer to zero (a gamma that weight decay has left without effect): what is multiplied
# by it can then be divided again. Gradients of feature maps move by this times their size, below rounding.
_SMALLEST_SCALE = 1e-12
_PAIR = {"ksize": [1, 2, 2, 1], "strides": [1, 2, 2, 1], "padding": "VALID"}


class Moments(NamedTuple):
    """Mean and variance over the batch, ``[channels] float32``, or the gradients with respect to them."""

    mean: tf.Tensor
    variance: tf.Tensor


class Pixels:
    """Sums over batch, height and width of feature maps ``[batch, height, width, any] float32``.

    Args:
        features: any of that size.
    """

    def __init__(self, features: tf.Tensor) -> None:
        size = features.shape[:3]
        if size.is_fully_defined():
            batch, height, width = size.as_list()
            self.count: Any = float(batch * height * width)
        else:
            batch, height, width = tf.unstack(tf.shape(features)[:3])
            self.count = tf.cast(batch * height * width, tf.float32)
        self._area = height * width
        self._ones = tf.fill([batch, 1, self._area], 1.0)

    def sums(self, x: tf.Tensor) -> tf.Tensor:
        """``[channels]``, image by image and then over images, which also loses fewer digits."""
        channels = x.shape[-1]
        return tf.reduce_sum(tf.matmul(self._ones, tf.reshape(x, [-1, self._area, channels])), axis=[0, 1])

    def moments(self, x: tf.Tensor) -> Moments:
        # With the mean taken off first: E[x^2] - E[x]^2 would cancel digits.
        mean = self.sums(x) / self.count
        return Moments(mean, self.sums(tf.math.squared_difference(x, mean)) / self.count)

    def through_moments(self, x: tf.Tensor, moments: Moments, upstream: Moments) -> tf.Tensor:
        """The gradient with respect to `x` of its `moments`, given the gradients with respect to them."""
        factor = upstream.variance * (2.0 / self.count)
        return tf.nn.bias_add(x * factor, upstream.mean / self.count - factor * moments.mean)


class NormalisedRelu:
    """``relu(gamma * (x - mean) / sqrt(variance + epsilon) + beta)`` and its gradients.

    Args:
        gamma, beta: ``[channels] float32``.
        moments: of x.
    """

    def __init__(self, gamma: tf.Tensor, beta: tf.Tensor, moments: Moments, epsilon: float) -> None:
        self.moments = moments
        self._inverse = tf.math.rsqrt(moments.variance + epsilon)
        scale = gamma * self._inverse
        self._shift = beta - moments.mean * scale
        tiny = tf.less(tf.abs(scale), _SMALLEST_SCALE)
        self._scale = tf.where(tiny, tf.fill(tf.shape(scale), _SMALLEST_SCALE), scale)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(tf.nn.bias_add(x * self._scale, self._shift))

    def times_scale(self, kernel: tf.Tensor) -> tf.Tensor:
        """``[height, width, channels, filters]``: with it, the gradients of a convolution are scaled."""
        return kernel * self._scale[:, tf.newaxis]

    def gradients(
        self, scaled: tf.Tensor, x: tf.Tensor, pixels: Pixels
    ) -> Tuple[tf.Tensor, tf.Tensor, Moments]:
        """With respect to gamma, beta and the moments.

        Args:
            scaled: the gradient with respect to x through this alone, moments held: that of the result,
                zero where the result is, times the scale.
        """
        total = pixels.sums(scaled)
        centred = pixels.sums(scaled * x) - self.moments.mean * total
        gamma = centred * self._inverse / self._scale
        of_moments = Moments(-total, -0.5 * tf.square(self._inverse) * centred)
        return gamma, total / self._scale, of_moments


def masked(upstream: tf.Tensor, result: tf.Tensor) -> tf.Tensor:
    """`upstream` where the `result` of a ReLU is above zero: in 0.6 of the time of ReluGrad."""
    return tf.raw_ops.LeakyReluGrad(gradients=upstream, features=result, alpha=0.0)


class LayerWeights(NamedTuple):
    """The trainable tensors of a dense layer, in their order in it."""

    gamma1: tf.Tensor
    beta1: tf.Tensor
    kernel1: tf.Tensor
    gamma2: tf.Tensor
    beta2: tf.Tensor
    kernel2: tf.Tensor


class _DenseLayer:
    """The new feature maps of a layer, with what their gradients need."""

    def __init__(self, weights: LayerWeights, epsilon: float, pixels: Pixels) -> None:
        self._weights, self._epsilon, self._pixels = weights, epsilon, pixels

    def forward(self, x: tf.Tensor, moments: Moments) -> tf.Tensor:
        """``[batch, height, width, growth_rate]`` of the concatenated `x`."""
        weights = self._weights
        self.norm1 = NormalisedRelu(weights.gamma1, weights.beta1, moments, self._epsilon)
        relu1 = self.norm1(x)
        bottleneck = _convolve(relu1, weights.kernel1)
        moments2 = self._pixels.moments(bottleneck)
        self.norm2 = NormalisedRelu(weights.gamma2, weights.beta2, moments2, self._epsilon)
        relu2 = self.norm2(bottleneck)
        self._kept = x, relu1, bottleneck, relu2
        return _convolve(relu2, weights.kernel2)

    def compute_again(self, x: tf.Tensor, after: tf.Tensor, keep_bottleneck: bool) -> None:
        """What `forward` kept, from x and perhaps the bottleneck: the same bits, not before `after`."""
        relu1 = self.norm1(x)
        if keep_bottleneck:
            bottleneck = held(self._kept[2], after)
        else:
            bottleneck = _convolve(relu1, self._weights.kernel1)
        self._kept = x, relu1, bottleneck, self.norm2(bottleneck)

    def gradients(self, upstream: tf.Tensor) -> Tuple[tf.Tensor, Moments, List[tf.Tensor]]:
        """With respect to x, to its moments and to the weights."""
        weights, pixels = self._weights, self._pixels
        x, relu1, bottleneck, relu2 = self._kept
        kernel2 = kernel_gradient(relu2, weights.kernel2, upstream)
        scaled = masked(input_gradient(relu2, self.norm2.times_scale(weights.kernel2), upstream), relu2)
        gamma2, beta2, of_moments = self.norm2.gradients(scaled, bottleneck, pixels)
        upstream = scaled + pixels.through_moments(bottleneck, self.norm2.moments, of_moments)
        kernel1 = kernel_gradient(relu1, weights.kernel1, upstream)
        scaled = masked(input_gradient(relu1, self.norm1.times_scale(weights.kernel1), upstream), relu1)
        gamma1, beta1, of_moments = self.norm1.gradients(scaled, x, pixels)
        return scaled, of_moments, [gamma1, beta1, kernel1, gamma2, beta2, kernel2]


class _Block:
    """The forward pass of a block, and its backward pass."""

    def __init__(self, pixels: Pixels, block: Any) -> None:
        self._pixels, self._block, self._layers = pixels, block, block.dense_layers

    def forward(self, inputs: tf.Tensor, *weights: tf.Tensor) -> tf.Tensor:
        size = len(LayerWeights._fields)
        self._moments = [self._pixels.moments(inputs)]
        self._new: List[Tuple[tf.Tensor, tf.Tensor]] = []
        self.dense_layers: List[_DenseLayer] = []
        x = inputs
        for number, layer in enumerate(self._layers):
            own = LayerWeights(*weights[number * size : (number + 1) * size])
            dense_layer = _DenseLayer(own, layer.bn_epsilon, self._pixels)
            with tf.name_scope(layer.name):
                before = dense_layer.forward(x, _joined(self._moments))
                after = before if layer.dropout is None else layer.dropout(before, training=True)
                self._moments.append(self._pixels.moments(after))
                x = tf.concat([x, after], axis=-1)
            self.dense_layers.append(dense_layer)
            self._new.append((before, after))
        self._inputs, self._result = inputs, x
        return x

    def gradients(self, upstream: tf.Tensor) -> List[tf.Tensor]:
        """With respect to the inputs and to all weights of all layers."""
        found: List[tf.Tensor] = []
        of_moments: Optional[Moments] = None  # no layer of the block sees the last feature maps
        for number in reversed(range(len(self._layers))):
            before, after = self._new[number]
            sizes = [int(upstream.shape[-1]) - int(after.shape[-1]), int(after.shape[-1])]
            upstream, new = tf.split(upstream, sizes, axis=-1)
            if of_moments is not None:
                of_moments, own = _split(of_moments, sizes)
                new += self._pixels.through_moments(after, self._moments[number + 1], own)
            if after is not before:
                new = tf.gradients(after, before, new)[0]
            if self._block.recompute:
                x = held(self._result, new)[..., : sizes[0]]
                self.dense_layers[number].compute_again(x, new, self._block.keep_bottlenecks)
            more, more_of_moments, of_weights = self.dense_layers[number].gradients(new)
            upstream, of_moments = upstream + more, _sum(of_moments, more_of_moments)
            found = of_weights + found
        if of_moments is not None:
            upstream += self._pixels.through_moments(self._inputs, self._moments[0], of_moments)
        return [upstream, *found]


@tf.autograph.experimental.do_not_convert
def dense_block(inputs: tf.Tensor, layer: Any) -> tf.Tensor:
    """A block in training, for Keras' call of it: updates of moving averages are added to its parts.

    With `recompute`, what its layers hold is computed again in the backward pass, from the block's result,
    instead of kept: the same bits for less memory and more time.

    Args:
        inputs: ``[batch, height, width, channels] float32``.
        layer: a built `DenseBlock`.

    Returns:
        ``[batch, height, width, channels + num_layers * growth_rate] float32``.
    """
    pixels = Pixels(inputs)
    block = _Block(pixels, layer)
    inputs_and_weights = [inputs, *(tensor for part in layer.dense_layers for tensor in part.tensors())]
    result = _with_gradients(block.forward, block.gradients, inputs_and_weights)
    for part, computed in zip(layer.dense_layers, block.dense_layers):
        for norm, used in ((part.bn1, computed.norm1), (part.bn2, computed.norm2)):
            _update_averages(norm, used.moments, pixels.count)
    return result


@tf.autograph.experimental.do_not_convert
def transition(inputs: tf.Tensor, layer: Any) -> tf.Tensor:
    """As `dense_block` for a built `TransitionLayer`: ``[batch, height // 2, width // 2, filters]``."""
    pixels = Pixels(inputs)
    moments = pixels.moments(inputs)
    kept: Dict[str, Any] = {}

    def forward(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        norm = NormalisedRelu(gamma, beta, moments, layer.bn_epsilon)
        relu = norm(x)
        pooled = tf.raw_ops.AvgPool(value=relu, **_PAIR)
        kept.update(norm=norm, relu=relu, pooled=pooled, kernel=kernel)
        return _convolve(pooled, kernel)

    def gradients(upstream: tf.Tensor) -> List[tf.Tensor]:
        norm, relu, pooled, kernel = (kept[name] for name in ("norm", "relu", "pooled", "kernel"))
        if layer.recompute:
            relu = norm(held(inputs, upstream))
        of_kernel = kernel_gradient(pooled, kernel, upstream)
        of_pooled = input_gradient(pooled, norm.times_scale(kernel), upstream)
        size = tf.shape(inputs)
        scaled = masked(tf.raw_ops.AvgPoolGrad(orig_input_shape=size, grad=of_pooled, **_PAIR), relu)
        gamma, beta, of_moments = norm.gradients(scaled, inputs, pixels)
        of_inputs = scaled + pixels.through_moments(inputs, moments, of_moments)
        return [of_inputs, gamma, beta, of_kernel]

    weights = [layer.bn.gamma, layer.bn.beta, layer.reduction.kernel]
    result = _with_gradients(forward, gradients, [inputs, *weights])
    _update_averages(layer.bn, moments, pixels.count)
    return result


def _update_averages(norm: tf.keras.layers.BatchNormalization, moments: Moments, pixel_count: Any) -> None:
    """Adds the updates of `norm` in training, like Keras: the variance without bias."""
    unbiased = moments.variance * (pixel_count / tf.maximum(pixel_count - 1.0, 1.0))
    for moving, value in ((norm.moving_mean, moments.mean), (norm.moving_variance, unbiased)):
        change = (moving - value) * (1.0 - norm.momentum)
        update = moving.assign_sub(change, read_value=False)
        # What Keras' add_update does, which would walk through the block once more for each: in half of the
        # time that building a block takes, it learns that the block's inputs lead to the update.
        update._unconditional_update = False
        norm._updates.append(update)


def _convolve(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(x, kernel, strides=1, padding="SAME")


def _with_gradients(
    forward: Callable[..., tf.Tensor], gradients: Callable[[tf.Tensor], List[tf.Tensor]], inputs: List[Any]
) -> tf.Tensor:
    @tf.custom_gradient
    def function(*tensors: tf.Tensor) -> Tuple[tf.Tensor, Callable[..., List[tf.Tensor]]]:
        return forward(*tensors), gradients

    return function(*inputs)


def _joined(moments: Sequence[Moments]) -> Moments:
    return Moments(*(tf.concat(parts, axis=0) for parts in zip(*moments)))


def _sum(one: Optional[Moments], other: Moments) -> Moments:
    return other if one is None else Moments(one.mean + other.mean, one.variance + other.variance)


def _split(moments: Moments, sizes: Sequence[int]) -> List[Moments]:
    """Those of so many channels each."""
    return [Moments(*parts) for parts in zip(*(tf.split(each, sizes) for each in moments))]
