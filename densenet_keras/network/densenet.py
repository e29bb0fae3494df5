"""DenseNets as `tf.keras.Model`s from normalised images to logits."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence, Tuple

import tensorflow as tf
from tensorflow.python.util import deprecation

from densenet_keras.network.layers import (
    NHWC,
    DenseBlock,
    TransitionLayer,
    batch_norm,
    convolution,
    derived_seed,
    original_initializer,
    seeded,
)
from densenet_keras.network.variants import (
    BN_EPSILON,
    BN_MOMENTUM,
    BN_SIZE,
    CIFAR_STEM,
    COMPRESSION,
    ORIGINAL_STEM,
    VARIANTS,
    Variant,
)

if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object  # Python 3.7 has none

# Blocks that hold most of the memory: --recompute computes their bottlenecks again too.
_WIDE_BLOCKS = 2

Shape = Sequence[Optional[int]]  # height, width, channels; None for a side that varies


class Architecture(Protocol):
    """What decides a network: the settings of a run, or anything else with these names.

    None stands for what the variant has.
    """

    @property
    def model(self) -> str: ...
    @property
    def num_classes(self) -> Optional[int]: ...
    @property
    def image_size(self) -> Optional[int]: ...
    @property
    def growth_rate(self) -> Optional[int]: ...
    @property
    def bn_size(self) -> int: ...
    @property
    def drop_rate(self) -> float: ...
    @property
    def bn_momentum(self) -> float: ...
    @property
    def bn_epsilon(self) -> float: ...
    @property
    def stem(self) -> str: ...


def build_densenet(
    model_config: Architecture,
    inputs: Optional[tf.Tensor] = None,
    name: Optional[str] = None,
    seed: Optional[int] = None,
    frozen: Sequence[str] = (),
    keep_statistics: bool = False,
    rearranged: bool = False,
    recompute: bool = False,
) -> tf.keras.Model:
    """The network of a resolved configuration.

    `model_config.dtype` is the caller's affair: it says how images are rounded before they come here.

    Args:
        inputs: ``[batch, image_size, image_size, 3] float32``, normalised, to build the model
            directly on; None makes a placeholder. With the learning phase fixed to 1 beforehand,
            batch normalisation then exists once, in training form, and `get_updates_for(inputs)`
            holds the updates of its moving averages, which the caller must run.
        name: of the model; default: `model_config.model`.
        seed, frozen, keep_statistics, rearranged, recompute: see `densenet`.

    Returns:
        A model with logits ``[batch, num_classes] float32``. `model(others, training=False)` is
        its inference form on the same variables.
    """
    variant = VARIANTS[model_config.model].with_stem(model_config.stem)
    size = model_config.image_size or variant.image_size
    return densenet(
        variant,
        classes=model_config.num_classes or variant.num_classes,
        input_shape=(size, size, 3),
        inputs=inputs,
        growth_rate=model_config.growth_rate,
        bn_size=model_config.bn_size,
        drop_rate=model_config.drop_rate,
        bn_momentum=model_config.bn_momentum,
        bn_epsilon=model_config.bn_epsilon,
        name=name,
        seed=seed,
        frozen=frozen,
        keep_statistics=keep_statistics,
        rearranged=rearranged,
        recompute=recompute,
    )


def densenet(
    variant: Variant,
    *,
    classes: Optional[int] = None,
    input_shape: Optional[Shape] = None,
    inputs: Optional[tf.Tensor] = None,
    growth_rate: Optional[int] = None,
    bn_size: int = BN_SIZE,
    drop_rate: float = 0.0,
    compression: float = COMPRESSION,
    bn_momentum: float = BN_MOMENTUM,
    bn_epsilon: float = BN_EPSILON,
    kernel_initializer: Any = None,
    name: Optional[str] = None,
    seed: Optional[int] = None,
    frozen: Sequence[str] = (),
    keep_statistics: bool = False,
    rearranged: bool = False,
    recompute: bool = False,
) -> tf.keras.Model:
    """A DenseNet-BC from images ``[batch, height, width, 3] float32`` to logits ``[batch, classes]``.

    Args:
        variant: blocks, stem and defaults; see `variants`.
        classes: width of the classifier; default: the variant's.
        input_shape: (height, width, channels); None for a side that varies.
        inputs: tensor of that shape to build on, instead of a placeholder.
        growth_rate: feature maps that each dense layer adds; the stem makes twice as many.
        bn_size: width of each 1x1 convolution in growth rates.
        drop_rate: share of each layer's new feature values that training drops; the paper has 0.2
            for small data sets without augmentation.
        compression: share of the feature maps that a transition keeps.
        bn_momentum: decay of the moving averages; the original's 0.9.
        bn_epsilon: the original's 1e-3; weights from Keras want 1.001e-5, from Torch 1e-5.
        kernel_initializer: of all convolutions; default: `layers.original_initializer()`.
        name: of the model; default: the variant's.
        seed: makes the initial weights a function of this, their names and the graph's seed alone,
            independent of what else the graph holds; None draws them as Keras does.
        frozen: parts (see `Variant.parts`) whose variables are not trainable and whose batch
            normalisation uses and keeps its moving statistics.
        keep_statistics: the same for batch normalisation everywhere, gamma and beta still trainable.
        rearranged, recompute: how blocks and transitions are trained, with the same results; see
            `DenseBlock` and `TransitionLayer`.

    Raises:
        ValueError: an argument is outside its range; the message says which.
    """
    if growth_rate is not None:
        _check(growth_rate >= 1, f"growth_rate={growth_rate}", "must be at least 1")
        variant = variant.with_growth_rate(growth_rate)
    classes = variant.num_classes if classes is None else classes
    shape = _checked_shape(variant, input_shape, inputs)
    _check(classes >= 1, f"classes={classes}", "must be at least 1")
    _check(bn_size >= 1, f"bn_size={bn_size}", "must be at least 1")
    _check(0.0 <= drop_rate < 1.0, f"drop_rate={drop_rate}", "must be at least 0 and below 1")
    _check(0.0 < compression <= 1.0, f"compression={compression}", "must be above 0 and at most 1")
    _check(0.0 <= bn_momentum < 1.0, f"bn_momentum={bn_momentum}", "must be at least 0 and below 1")
    _check(bn_epsilon > 0.0, f"bn_epsilon={bn_epsilon}", "must be above 0")
    build = _Builder(
        variant=variant,
        bn_size=bn_size,
        drop_rate=drop_rate,
        compression=compression,
        bn_momentum=bn_momentum,
        bn_epsilon=bn_epsilon,
        kernel_initializer=kernel_initializer or original_initializer(),
        seed=seed,
        frozen=tuple(frozen),
        keep_statistics=keep_statistics,
        rearranged=rearranged,
        recompute=recompute,
    )
    if inputs is None:
        images = tf.keras.layers.Input(shape=shape, name="images")
    else:
        images = tf.keras.layers.Input(tensor=inputs, name="images")
    # Every variable that any Keras layer of 1.15 creates logs a warning about Keras' own code.
    with deprecation.silence():
        logits = build.head(build.blocks(build.stem(images)), classes)
        return tf.keras.Model(images, logits, name=name or variant.name)


@dataclasses.dataclass(frozen=True)
class _Builder:
    """The three parts of a network under fixed layer names, which name the variables too."""

    variant: Variant
    bn_size: int
    drop_rate: float
    compression: float
    bn_momentum: float
    bn_epsilon: float
    kernel_initializer: Any
    seed: Optional[int]
    frozen: Tuple[str, ...] = ()
    keep_statistics: bool = False
    rearranged: bool = False
    recompute: bool = False

    def _norm(self, name: str, part: str, x: tf.Tensor) -> tf.Tensor:
        return self._apply(batch_norm(name, self.bn_momentum, self.bn_epsilon), part, x)

    def _apply(self, layer: tf.keras.layers.Layer, part: str, x: tf.Tensor) -> tf.Tensor:
        """`layer`, which holds batch normalisation, as `part` is to be trained."""
        layer.trainable = part not in self.frozen
        if self.keep_statistics or part in self.frozen:
            return layer(x, training=False)
        return layer(x)

    def _frozen_or_not(self, stem_convolution: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
        stem_convolution.trainable = "stem" not in self.frozen
        return stem_convolution

    def stem(self, x: tf.Tensor) -> tf.Tensor:
        """Images to the first feature maps.

        Padding is explicit and symmetric, as in Torch and keras.applications. "same" would pad one
        pixel less at the top and left of an even-sized image, and shift imported weights by it; the
        original does that, and weights of its stem need it.
        """
        conv = functools.partial(
            convolution,
            self.variant.init_features,
            name="stem_conv",
            initializer=self.kernel_initializer,
            seed=self.seed,
        )
        if self.variant.stem == CIFAR_STEM:
            return self._frozen_or_not(conv(kernel_size=3))(x)
        if self.variant.stem == ORIGINAL_STEM:
            x = self._frozen_or_not(conv(kernel_size=7, strides=2))(x)
            return tf.keras.layers.MaxPooling2D(3, strides=2, data_format=NHWC, name="stem_pool")(x)
        x = tf.keras.layers.ZeroPadding2D(3, data_format=NHWC, name="stem_pad")(x)
        x = self._frozen_or_not(conv(kernel_size=7, strides=2, padding="valid"))(x)
        x = self._norm("stem_bn", "stem", x)
        x = tf.keras.layers.ReLU(name="stem_relu")(x)
        # Zeros change no maximum, for nothing is negative after a ReLU. Pooling first would be less work, and
        # lose NaN: a maximum passes over it.
        x = tf.keras.layers.ZeroPadding2D(1, data_format=NHWC, name="stem_pool_pad")(x)
        return tf.keras.layers.MaxPooling2D(3, strides=2, data_format=NHWC, name="stem_pool")(x)

    def blocks(self, x: tf.Tensor) -> tf.Tensor:
        """Dense blocks with transitions between them."""
        shared: Dict[str, Any] = {
            "bn_momentum": self.bn_momentum,
            "bn_epsilon": self.bn_epsilon,
            "kernel_initializer": self.kernel_initializer,
        }
        for number, num_layers in enumerate(self.variant.blocks, start=1):
            if number > 1:
                name = f"transition{number - 1}"
                transition = TransitionLayer(
                    self.compression, name=name, seed=derived_seed(self.seed, name), **shared
                )
                transition.rearranged, transition.recompute = self.rearranged, self.recompute
                x = self._apply(transition, name, x)
            name = f"block{number}"
            block = DenseBlock(
                num_layers,
                self.variant.growth_rate,
                self.bn_size,
                self.drop_rate,
                name=name,
                seed=derived_seed(self.seed, name),
                **shared,
            )
            block.rearranged = self.rearranged
            block.recompute, block.keep_bottlenecks = self.recompute, number > _WIDE_BLOCKS
            x = self._apply(block, name, x)
        return x

    def head(self, x: tf.Tensor, classes: int) -> tf.Tensor:
        """Feature maps to logits. Glorot's uniform kernel and zero bias are the original's."""
        x = self._norm("final_bn", "final", x)
        x = tf.keras.layers.ReLU(name="final_relu")(x)
        x = tf.keras.layers.GlobalAveragePooling2D(data_format=NHWC, name="global_pool")(x)
        return tf.keras.layers.Dense(
            classes,
            kernel_initializer=seeded("glorot_uniform", derived_seed(self.seed, "linear")),
            name="linear",
        )(x)


def _check(holds: bool, given: str, rule: str) -> None:
    if not holds:
        raise ValueError(f"{given}: {rule}")


def _checked_shape(
    variant: Variant, input_shape: Optional[Shape], inputs: Optional[tf.Tensor]
) -> Tuple[Optional[int], ...]:
    """Height, width and channels of the input, from whichever of the two is given."""
    if inputs is not None:
        _check(
            inputs.dtype == tf.float32 and inputs.shape.rank == 4,
            f"inputs={inputs}",
            "must be a float32 tensor [batch, height, width, channels]",
        )
        own = inputs.shape[1:]
        _check(
            input_shape is None or own.is_compatible_with(list(input_shape)),
            f"inputs of shape {inputs.shape}",
            f"height, width and channels must be {input_shape}, as the configuration says",
        )
        input_shape = own.as_list()
    elif input_shape is None:
        input_shape = (variant.image_size, variant.image_size, 3)
    shape = tuple(input_shape)
    _check(
        len(shape) == 3 and shape[2] is not None and shape[2] >= 1,
        f"input_shape={shape}",
        "must be (height, width, channels), such as (224, 224, 3)",
    )
    least = variant.smallest_image_size
    _check(
        all(side is None or side >= least for side in shape[:2]),
        f"input_shape={shape}",
        f"height and width must be at least {least}, or nothing is left for the last block of {variant.name}",
    )
    return shape
