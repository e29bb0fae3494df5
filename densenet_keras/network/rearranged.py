"""Dense blocks and transitions in the form that takes a CPU the least time to train.

They compute what `layers` computes, results and gradients equal to float32 rounding, with less work:

- The mean and variance of a feature map are the same for all layers behind it, the transition among them:
  they are computed once, and so is the gradient through them.
- The scale of a normalisation is put into the kernel of the convolution behind it, forward and for the
  gradient before it: [channels] numbers instead of feature maps. The gradient of gamma comes out of the
  kernel's.
- A transition averages pixels before its 1x1 convolution instead of behind it, for a quarter of the work.
- Sums over pixels are products of matrices, in half the time of TensorFlow's reductions. Products of feature
  maps, of which only sums are needed, are never written.

A whole block has one gradient function, which adds the gradients of the feature maps layer by layer. From
TensorFlow's own, the gradients of all layers would have to be added at once, or copied twice.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

import tensorflow as tf

from densenet_keras.network.constants import integer, integers, number
from densenet_keras.network.convolutions import convolve, input_gradient, kernel_gradient
from densenet_keras.network.normalisation import (
    GradientSums,
    Moments,
    NormalisedRelu,
    NormWeights,
    Pixels,
    gradient_sums,
    masked,
    norm_weights,
    split,
    without_mean,
)
from densenet_keras.network.recompute import held

_PAIR = {"ksize": [1, 2, 2, 1], "strides": [1, 2, 2, 1], "padding": "VALID"}
# The attribute of a block's result that holds its moments: what comes behind it need not compute them again.
_MOMENTS = "_densenet_moments"


class LayerWeights(NamedTuple):
    """The trainable tensors of a dense layer, in their order in it."""

    gamma1: tf.Tensor
    beta1: tf.Tensor
    kernel1: tf.Tensor
    gamma2: tf.Tensor
    beta2: tf.Tensor
    kernel2: tf.Tensor


class _DenseLayer:
    """A layer of a block: its new feature maps, with what the gradients need of them.

    Attributes:
        norm1, norm2: its normalisations.
        features: the new feature maps.
        moments: of the new feature maps.
    """

    def __init__(
        self, layer: Any, weights: LayerWeights, norms: Sequence[NormWeights], pixels: Pixels
    ) -> None:
        self._layer, self._norms, self._pixels = layer, norms, pixels
        self._kernels = weights.kernel1, weights.kernel2

    def forward(self, x: tf.Tensor, moments: Moments) -> None:
        """Computes the attributes from the concatenated `x`."""
        epsilon, (kernel1, kernel2), (weights1, weights2) = self._layer.bn_epsilon, self._kernels, self._norms
        self.norm1 = NormalisedRelu(weights1, kernel1, moments, epsilon)
        relu1 = self.norm1(x)
        bottleneck, moments2 = self._pixels.centred(convolve(relu1, self.norm1.kernel()))
        self.norm2 = NormalisedRelu(weights2, kernel2, moments2, epsilon, centred=True)
        relu2 = self.norm2(bottleneck)
        self._kept = x, relu1, bottleneck, relu2
        self._result = self.features = convolve(relu2, self.norm2.kernel())
        if self._layer.dropout is not None:
            self.features = self._layer.dropout(self._result, training=True)
        self.moments = self._pixels.moments(self.features)

    def compute_again(self, x: tf.Tensor, after: tf.Tensor, keep_bottleneck: bool) -> None:
        """What `forward` kept, from x and perhaps the bottleneck: the same bits, not before `after`."""
        relu1 = self.norm1(x)
        if keep_bottleneck:
            bottleneck = held(self._kept[2], after)
        else:
            with tf.control_dependencies([after]):
                kernel = self.norm1.kernel()
            bottleneck = without_mean(convolve(relu1, kernel), self.norm2.moments.mean)
        self._kept = x, relu1, bottleneck, self.norm2(bottleneck)

    def through_dropout(self, upstream: tf.Tensor) -> tf.Tensor:
        """The gradient with respect to the feature maps before dropout, if there is any."""
        if self._result is self.features:
            return upstream
        return tf.gradients(self.features, self._result, upstream)[0]

    def gradients(self, upstream: tf.Tensor) -> Tuple[tf.Tensor, GradientSums, List[tf.Tensor]]:
        """With respect to x, moments held, and to the weights; and the sums for x's moments."""
        norm1, norm2, pixels = self.norm1, self.norm2, self._pixels
        x, relu1, bottleneck, relu2 = self._kept
        of_kernel = kernel_gradient(relu2, self._kernels[1], upstream)
        scaled = masked(input_gradient(relu2, norm2.gradient_kernel(upstream), upstream), relu2)
        of_weights2, sums = norm2.gradients(scaled, bottleneck, of_kernel, pixels)
        upstream = scaled + pixels.through_moments(bottleneck, norm2.mean, sums)
        of_kernel = kernel_gradient(relu1, self._kernels[0], upstream)
        scaled = masked(input_gradient(relu1, norm1.gradient_kernel(upstream), upstream), relu1)
        of_weights1, sums = norm1.gradients(scaled, x, of_kernel, pixels)
        return scaled, sums, [*of_weights1, *of_weights2]


class _Block:
    """The forward pass of a block, and its backward pass.

    Attributes:
        layers: after the forward pass.
    """

    def __init__(self, pixels: Pixels, block: Any) -> None:
        self._pixels, self._block = pixels, block
        self.layers: List[_DenseLayer] = []

    def forward(self, inputs: tf.Tensor, *weights: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The result, its mean and its variance."""
        self._inputs, self._moments = inputs, self._pixels.moments(inputs)
        x, moments = inputs, [self._moments]
        size = len(LayerWeights._fields)
        own = [LayerWeights(*weights[begin : begin + size]) for begin in range(0, len(weights), size)]
        # All at once, for the fewer operations.
        norms = norm_weights(
            [pair for each in own for pair in ((each.gamma1, each.beta1), (each.gamma2, each.beta2))]
        )
        for index, layer in enumerate(self._block.dense_layers):
            with tf.name_scope(layer.name):
                computed = _DenseLayer(layer, own[index], norms[2 * index : 2 * index + 2], self._pixels)
                computed.forward(x, _joined(moments))
                moments.append(computed.moments)
                x = tf.concat([x, computed.features], axis=integer(3))
            self.layers.append(computed)
        self._result = x
        return (x, *_joined(moments))

    def gradients(self, upstream: tf.Tensor, *of_moments: tf.Tensor) -> List[tf.Tensor]:
        """With respect to the inputs and to all weights of all layers, from those of what `forward` gives."""
        found: List[tf.Tensor] = []
        sums = gradient_sums(Moments(*of_moments))
        for layer in reversed(self.layers):
            new_channels = int(layer.features.shape[-1])
            sizes = [int(upstream.shape[-1]) - new_channels, new_channels]
            upstream, new = _split_channels(upstream, sizes)
            (plain, new_plain), (weighted, new_weighted) = (split(each, sizes) for each in sums)
            own = GradientSums(new_plain, new_weighted)
            features = layer.features
            if self._block.recompute:  # they are in the result as well
                result = held(self._result, new)
                features = result[..., sizes[0] : sum(sizes)]
            new += self._pixels.through_moments(features, layer.moments.mean, own)
            new = layer.through_dropout(new)
            if self._block.recompute:
                layer.compute_again(result[..., : sizes[0]], new, self._block.keep_bottlenecks)
            more, more_sums, of_weights = layer.gradients(new)
            upstream += more
            sums = GradientSums(plain + more_sums.plain, weighted + more_sums.weighted)
            found = of_weights + found
        upstream += self._pixels.through_moments(self._inputs, self._moments.mean, sums)
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
    result, *moments = _with_gradients(block.forward, block.gradients, inputs_and_weights)
    setattr(result, _MOMENTS, Moments(*moments))
    norms = [norm for part in layer.dense_layers for norm in (part.bn1, part.bn2)]
    used = [norm.moments for computed in block.layers for norm in (computed.norm1, computed.norm2)]
    _update_averages(norms, used, pixels)
    return result


@tf.autograph.experimental.do_not_convert
def transition(inputs: tf.Tensor, layer: Any) -> tf.Tensor:
    """As `dense_block` for a built `TransitionLayer`: ``[batch, height // 2, width // 2, filters]``."""
    pixels = Pixels(inputs)
    moments = getattr(inputs, _MOMENTS, None) or pixels.moments(inputs)
    kept: Dict[str, Any] = {}

    def forward(x: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, *weights: tf.Tensor) -> tf.Tensor:
        gamma, beta, kernel = weights
        (own,) = norm_weights([(gamma, beta)])
        norm = NormalisedRelu(own, kernel, Moments(mean, variance), layer.bn_epsilon)
        relu = norm(x)
        pooled = tf.raw_ops.AvgPool(value=relu, **_PAIR)
        kept.update(norm=norm, relu=relu, pooled=pooled)
        return convolve(pooled, norm.kernel())

    def gradients(upstream: tf.Tensor) -> List[tf.Tensor]:
        norm, relu, pooled = (kept[name] for name in ("norm", "relu", "pooled"))
        if layer.recompute:
            relu = norm(held(inputs, upstream))
        of_kernel = kernel_gradient(pooled, layer.reduction.kernel, upstream)
        of_pooled = input_gradient(pooled, norm.gradient_kernel(upstream), upstream)
        size = tf.shape(inputs)
        scaled = masked(tf.raw_ops.AvgPoolGrad(orig_input_shape=size, grad=of_pooled, **_PAIR), relu)
        of_weights, sums = norm.gradients(scaled, inputs, of_kernel, pixels)
        return [scaled, *sums.of_moments(), *of_weights]

    weights = [layer.bn.gamma, layer.bn.beta, layer.reduction.kernel]
    result = _with_gradients(forward, gradients, [inputs, *moments, *weights])
    _update_averages([layer.bn], [moments], pixels)
    return result


def _update_averages(
    norms: Sequence[tf.keras.layers.BatchNormalization], moments: Sequence[Moments], pixels: Pixels
) -> None:
    """Adds the updates of `norms` in training, like Keras: variances without bias.

    All at once, for the fewer operations.
    """
    joined = _joined(moments)
    latest = tf.concat([joined.mean, pixels.unbiased(joined.variance)], axis=integer(0))
    averages = [norm.moving_mean for norm in norms] + [norm.moving_variance for norm in norms]
    kept = tf.concat([average.value() for average in averages], axis=integer(0))
    changes = (kept - latest) * number(1.0 - norms[0].momentum)
    sizes = [average.shape.num_elements() for average in averages]
    for norm, average, change in zip([*norms, *norms], averages, split(changes, sizes)):
        update = average.assign_sub(change, read_value=False)
        # What Keras' add_update does, which would walk through the block once more for each: in half of the
        # time that building a block takes, it learns that the block's inputs lead to the update.
        update._unconditional_update = False
        norm._updates.append(update)


def _with_gradients(
    forward: Callable[..., tf.Tensor], gradients: Callable[[tf.Tensor], List[tf.Tensor]], inputs: List[Any]
) -> tf.Tensor:
    @tf.custom_gradient
    def function(*tensors: tf.Tensor) -> Tuple[tf.Tensor, Callable[..., List[tf.Tensor]]]:
        return forward(*tensors), gradients

    return function(*inputs)


def _joined(moments: Sequence[Moments]) -> Moments:
    if len(moments) == 1:
        return moments[0]
    return Moments(*(tf.concat(parts, axis=integer(0)) for parts in zip(*moments)))


def _split_channels(x: tf.Tensor, sizes: Sequence[int]) -> List[tf.Tensor]:
    """Of feature maps: slices of a matrix are copied row by row, in 0.6 to 0.8 of the time of tf.split."""
    if not x.shape.is_fully_defined():
        return list(tf.split(x, sizes, axis=3))
    matrix, begin, parts = tf.reshape(x, integers([-1, sum(sizes)])), 0, []
    for size in sizes:
        part = tf.slice(matrix, integers([0, begin]), integers([-1, size]))
        parts.append(tf.reshape(part, integers([*x.shape[:3], size])))
        begin += size
    return parts
