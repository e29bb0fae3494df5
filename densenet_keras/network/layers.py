"""The building blocks of a DenseNet as Keras layers.

Tensors are [batch, height, width, channels] float32 throughout. Importing this module registers the
layers with Keras, so that `tf.keras.models.load_model` needs no `custom_objects`.
"""

from __future__ import annotations

import functools
import zlib
from typing import Any, Dict, Optional

import tensorflow as tf

from densenet_keras.network import rearranged
from densenet_keras.network.recompute import recomputed
from densenet_keras.network.variants import BN_EPSILON, BN_MOMENTUM, BN_SIZE, COMPRESSION

NHWC = "channels_last"  # fixed, whatever ~/.keras/keras.json says


def original_initializer() -> tf.keras.initializers.Initializer:
    """The original's kernels: truncated normal of variance 5 / (kernel area * output channels).

    The paper takes He et al.'s normal of variance 2 / (kernel area * input channels), which is
    `kernel_initializer="he_normal"`.
    """
    return tf.keras.initializers.VarianceScaling(scale=5.0, mode="fan_out", distribution="truncated_normal")


def derived_seed(seed: Optional[int], name: str) -> Optional[int]:
    """A seed for the part called `name`; None stays None."""
    return None if seed is None else zlib.crc32(f"{seed}/{name}".encode()) & 0x7FFFFFFF


def seeded(initializer: Any, seed: Optional[int]) -> Any:
    """`initializer` with that seed, unless it takes none, has one already, or `seed` is None."""
    initializer = tf.keras.initializers.get(initializer)
    if seed is None or not hasattr(initializer, "get_config"):
        return initializer
    config = initializer.get_config()
    if config.get("seed", 0) is not None:
        return initializer
    config.pop("dtype", None)  # its value is the default; passing it is deprecated
    return initializer.__class__.from_config({**config, "seed": seed})


def batch_norm(name: str, momentum: float, epsilon: float) -> tf.keras.layers.BatchNormalization:
    """Normalisation of the channels."""
    return tf.keras.layers.BatchNormalization(axis=-1, momentum=momentum, epsilon=epsilon, name=name)


def convolution(
    filters: int,
    kernel_size: int,
    name: str,
    initializer: Any,
    seed: Optional[int],
    strides: int = 1,
    padding: str = "same",
) -> tf.keras.layers.Conv2D:
    """A convolution without bias; the seed of its initial values derives from `seed` and `name`."""
    return tf.keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=False,
        data_format=NHWC,
        kernel_initializer=seeded(initializer, derived_seed(seed, name)),
        name=name,
    )


class _Composite(tf.keras.layers.Layer):
    """A layer made of layers, with the options that all of ours share.

    The variables of the parts are created in `build`, so a built layer has all of its weights and a
    second call creates none.
    """

    def __init__(
        self,
        *,
        bn_momentum: float = BN_MOMENTUM,
        bn_epsilon: float = BN_EPSILON,
        kernel_initializer: Any = None,
        seed: Optional[int] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.bn_momentum = bn_momentum
        self.bn_epsilon = bn_epsilon
        self.kernel_initializer = tf.keras.initializers.get(kernel_initializer or original_initializer())
        self.seed = seed
        self.input_spec = tf.keras.layers.InputSpec(ndim=4)

    def get_config(self) -> Dict[str, Any]:
        return {
            **super().get_config(),
            "bn_momentum": self.bn_momentum,
            "bn_epsilon": self.bn_epsilon,
            "kernel_initializer": tf.keras.initializers.serialize(self.kernel_initializer),
            "seed": self.seed,
        }

    def batch_norm(self, name: str) -> tf.keras.layers.BatchNormalization:
        return batch_norm(name, self.bn_momentum, self.bn_epsilon)

    def conv(self, filters: int, kernel_size: int, name: str) -> tf.keras.layers.Conv2D:
        return convolution(filters, kernel_size, name, self.kernel_initializer, self.seed)

    def build_part(self, part: tf.keras.layers.Layer, input_shape: Any) -> tf.TensorShape:
        """Creates the variables of `part` and returns its output shape.

        The scope ends in a slash, which enters it without using it up: the first call of `part` then
        gets the very same scope, and its operations stand beside its variables. Eager scopes are
        never used up.
        """
        scope = part.name
        if not tf.executing_eagerly():
            outer = tf.compat.v1.get_default_graph().get_name_scope()
            scope = f"{outer}/{part.name}/" if outer else f"{part.name}/"
        with tf.name_scope(scope):
            part.build(input_shape)
        return part.compute_output_shape(input_shape)


def _is_training(training: Any) -> bool:
    """Whether a call is known to be one in training while the graph is built."""
    if training is None:
        training = tf.keras.backend.learning_phase()
    return not isinstance(training, tf.Tensor) and bool(training)


def _normalised_relu(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float) -> tf.Tensor:
    """What a normalisation in training and a ReLU give, moving averages aside."""
    return tf.nn.relu(tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, epsilon=epsilon)[0])


def _new_features(epsilon: float, inputs: tf.Tensor, *weights: tf.Tensor) -> tf.Tensor:
    """The feature maps that a `DenseLayer` adds, from tensors alone, as `call` computes them."""
    own = rearranged.LayerWeights(*weights)
    x = _normalised_relu(inputs, own.gamma1, own.beta1, epsilon)
    x = tf.nn.conv2d(x, own.kernel1, strides=1, padding="SAME")
    x = _normalised_relu(x, own.gamma2, own.beta2, epsilon)
    return tf.nn.conv2d(x, own.kernel2, strides=1, padding="SAME")


class DenseLayer(_Composite):
    """BN-ReLU-Conv1x1-BN-ReLU-Conv3x3, its output appended to its input along the channels.

    [batch, h, w, c] becomes [batch, h, w, c + growth_rate].

    Args:
        growth_rate: feature maps that the layer adds (k in the paper).
        bn_size: width of the 1x1 convolution in growth rates.
        drop_rate: share of the new feature values that training drops.
        bn_momentum: decay of the moving averages.
        bn_epsilon: added to the variance.
        kernel_initializer: of both convolutions; default: `original_initializer()`.
        seed: makes the initial values a function of this, the layer's parts and the graph's seed
            alone, wherever in the graph the layer is built; None draws them as Keras does.
    """

    def __init__(
        self, growth_rate: int, bn_size: int = BN_SIZE, drop_rate: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.growth_rate = growth_rate
        self.bn_size = bn_size
        self.drop_rate = drop_rate
        self.bn1 = self.batch_norm("bn1")
        self.conv1 = self.conv(bn_size * growth_rate, 1, "conv1")
        self.bn2 = self.batch_norm("bn2")
        self.conv2 = self.conv(growth_rate, 3, "conv2")
        self.dropout = None
        if drop_rate:
            self.dropout = tf.keras.layers.Dropout(
                drop_rate, seed=derived_seed(self.seed, "dropout"), name="dropout"
            )

    def tensors(self) -> rearranged.LayerWeights:
        """The trainable variables, frozen or not."""
        return rearranged.LayerWeights(
            gamma1=self.bn1.gamma,
            beta1=self.bn1.beta,
            kernel1=self.conv1.kernel,
            gamma2=self.bn2.gamma,
            beta2=self.bn2.beta,
            kernel2=self.conv2.kernel,
        )

    def get_config(self) -> Dict[str, Any]:
        return {
            **super().get_config(),
            "growth_rate": self.growth_rate,
            "bn_size": self.bn_size,
            "drop_rate": self.drop_rate,
        }

    def build(self, input_shape: Any) -> None:
        shape = tf.TensorShape(input_shape)
        for part in (self.bn1, self.conv1, self.bn2, self.conv2):
            shape = self.build_part(part, shape)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: Any = None, recompute: bool = False) -> tf.Tensor:
        x = tf.nn.relu(self.bn1(inputs, training=training))
        x = self.conv1(x)
        x = tf.nn.relu(self.bn2(x, training=training))
        x = self.conv2(x)
        if recompute:
            x = recomputed(x, functools.partial(_new_features, self.bn_epsilon), [inputs, *self.tensors()])
        if self.dropout is not None:
            x = self.dropout(x, training=training)
        return tf.concat([inputs, x], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> tf.TensorShape:
        batch, height, width, channels = tf.TensorShape(input_shape).as_list()
        return tf.TensorShape([batch, height, width, channels + self.growth_rate])


class DenseBlock(_Composite):
    """`num_layers` dense layers in a row, each fed with all feature maps before it.

    [batch, h, w, c] becomes [batch, h, w, c + num_layers * growth_rate]. The layers are in
    `dense_layers`; the other arguments are those of `DenseLayer`.

    Attributes:
        rearranged: whether training takes the form of `rearranged`, for CPUs.
        recompute: whether training computes the insides of each layer again for its gradients instead of
            keeping them; see `recompute`.
        keep_bottlenecks: whether the rearranged form then keeps the results of the 1x1 convolutions, which
            are most of the work.
    """

    rearranged = False
    recompute = False
    keep_bottlenecks = False

    def __init__(
        self,
        num_layers: int,
        growth_rate: int,
        bn_size: int = BN_SIZE,
        drop_rate: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_layers = num_layers
        self.growth_rate = growth_rate
        self.bn_size = bn_size
        self.drop_rate = drop_rate
        self.dense_layers = [self._dense_layer(f"layer{i + 1}") for i in range(num_layers)]

    def _dense_layer(self, name: str) -> DenseLayer:
        return DenseLayer(
            self.growth_rate,
            self.bn_size,
            self.drop_rate,
            bn_momentum=self.bn_momentum,
            bn_epsilon=self.bn_epsilon,
            kernel_initializer=self.kernel_initializer,
            seed=derived_seed(self.seed, name),
            name=name,
        )

    def get_config(self) -> Dict[str, Any]:
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "growth_rate": self.growth_rate,
            "bn_size": self.bn_size,
            "drop_rate": self.drop_rate,
        }

    def build(self, input_shape: Any) -> None:
        shape = tf.TensorShape(input_shape)
        for layer in self.dense_layers:
            shape = self.build_part(layer, shape)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        if self.rearranged and _is_training(training):
            return rearranged.dense_block(inputs, self)
        x = inputs
        forms = {"recompute": True} if self.recompute and _is_training(training) else {}
        for layer in self.dense_layers:
            x = layer(x, training=training, **forms)
        return x

    def compute_output_shape(self, input_shape: Any) -> tf.TensorShape:
        batch, height, width, channels = tf.TensorShape(input_shape).as_list()
        return tf.TensorShape([batch, height, width, channels + self.num_layers * self.growth_rate])


class TransitionLayer(_Composite):
    """BN-ReLU-Conv1x1-AveragePool2x2: fewer feature maps, at half the resolution.

    [batch, h, w, c] becomes [batch, h // 2, w // 2, int(compression * c)].

    Args:
        compression: share of the feature maps that remain (theta in the paper).
        bn_momentum, bn_epsilon, kernel_initializer, seed: see `DenseLayer`.

    Attributes:
        rearranged: whether training takes the form of `rearranged`, for CPUs.
        recompute: whether that form computes its normalised input again for the gradients.
    """

    rearranged = False
    recompute = False

    def __init__(self, compression: float = COMPRESSION, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.compression = compression
        self.bn = self.batch_norm("bn")
        self.reduction: Any = None  # its width follows from the input
        self.pool = tf.keras.layers.AveragePooling2D(2, data_format=NHWC, name="pool")

    def get_config(self) -> Dict[str, Any]:
        return {**super().get_config(), "compression": self.compression}

    def _filters(self, input_shape: Any) -> int:
        return int(self.compression * tf.TensorShape(input_shape).as_list()[-1])

    def build(self, input_shape: Any) -> None:
        shape = self.build_part(self.bn, tf.TensorShape(input_shape))
        self.reduction = self.conv(self._filters(shape), 1, "conv")
        self.build_part(self.reduction, shape)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        if self.rearranged and _is_training(training):
            return rearranged.transition(inputs, self)
        x = tf.nn.relu(self.bn(inputs, training=training))
        return self.pool(self.reduction(x))

    def compute_output_shape(self, input_shape: Any) -> tf.TensorShape:
        batch, height, width, _ = tf.TensorShape(input_shape).as_list()
        halves = [None if side is None else side // 2 for side in (height, width)]
        return tf.TensorShape([batch, *halves, self._filters(input_shape)])


tf.keras.utils.get_custom_objects().update(
    {kind.__name__: kind for kind in (DenseLayer, DenseBlock, TransitionLayer)}
)
