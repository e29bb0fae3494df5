"""The networks by name, as plain data that needs no TensorFlow."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Dict, Tuple

IMAGENET_STEM = "imagenet"  # 7x7 convolution and 3x3 max pool, both with stride 2 (paper table 1)
# The same of the original implementation: no batch norm and ReLU between the two, "same" padding before the
# convolution (a pixel more at the bottom and right), none before the pool. Its weights fit no other network.
ORIGINAL_STEM = "original"
HEAD = "linear"  # the classifier
CIFAR_STEM = "cifar"  # one 3x3 convolution at full resolution (paper section 4.1)
# The setting: the stem that a network has anyway, or the original's in its place.
STANDARD = "standard"
STEMS = (STANDARD, ORIGINAL_STEM)
BN_SIZE = 4  # paper section 3: each 1x1 convolution produces 4k feature maps
BN_MOMENTUM = 0.9  # decay=0.9 of the original; Torch calls the same 0.1
BN_EPSILON = 1e-3  # contrib's default, which the original leaves
COMPRESSION = 0.5  # paper section 3: theta of DenseNet-BC


@dataclass(frozen=True)
class Variant:
    """One network: its dense blocks, and what its input and output are unless somebody says otherwise.

    Attributes:
        blocks: dense layers in each dense block.
        growth_rate: feature maps that each dense layer adds.
        stem: IMAGENET_STEM, ORIGINAL_STEM or CIFAR_STEM.
        image_size: default height and width of the input in pixels.
        num_classes: default number of classes.
    """

    name: str
    blocks: Tuple[int, ...]
    growth_rate: int
    stem: str
    image_size: int
    num_classes: int

    def with_growth_rate(self, growth_rate: int) -> Variant:
        """This network with layers of another width."""
        return dataclasses.replace(self, growth_rate=growth_rate)

    def with_stem(self, stem: str) -> Variant:
        """This network with the stem of a setting's name; see `STEMS`.

        Raises:
            ValueError: it has no stem that could be exchanged.
        """
        if stem == STANDARD:
            return self
        if self.stem == CIFAR_STEM:
            raise ValueError(f"stem {stem}: {self.name} starts with one 3x3 convolution; leave it {STANDARD}")
        return dataclasses.replace(self, stem=ORIGINAL_STEM)

    @property
    def init_features(self) -> int:
        """Feature maps out of the stem: twice the growth rate (paper sections 3 and 4.1)."""
        return 2 * self.growth_rate

    @property
    def parts(self) -> Tuple[str, ...]:
        """What the network is made of, from images to logits, by the names that its variables begin with."""
        numbers = range(1, len(self.blocks) + 1)
        middle = [name for n in numbers for name in (f"block{n}", f"transition{n}")][:-1]
        return ("stem", *middle, "final", HEAD)

    def frozen_parts(self, last: str) -> Tuple[str, ...]:
        """The parts up to and including `last`: "none", "stem", "block1" to the last block, or "all", which
        leaves the classifier alone.

        Raises:
            ValueError: the network has no such part; the message lists those it has.
        """
        if last == "none":
            return ()
        if last == "all":
            return self.parts[:-1]
        ends = [part for part in self.parts if part == "stem" or part.startswith("block")]
        if last not in ends:
            raise ValueError(f"{self.name} has the parts none, {', '.join(ends)} and all")
        return self.parts[: self.parts.index(last) + 1]

    def feature_sizes(self, image_size: int) -> Tuple[int, ...]:
        """Height (or width) of the feature maps in each dense block for images of that height."""
        size = image_size
        if self.stem != CIFAR_STEM:
            size = -(-size // 2)  # the padded stride-2 convolution rounds up, and so does the padded pool
            size = -(-size // 2) if self.stem == IMAGENET_STEM else (size - 1) // 2
        sizes = [size]
        for _ in self.blocks[1:]:
            size //= 2  # the pools between blocks round down
            sizes.append(size)
        return tuple(sizes)

    @property
    def smallest_image_size(self) -> int:
        """The least height and width that leaves a pixel in the last dense block."""
        return next(size for size in range(1, 10_000) if self.feature_sizes(size)[-1] >= 1)


def _imagenet(name: str, blocks: Tuple[int, ...], growth_rate: int = 32) -> Variant:
    return Variant(name, blocks, growth_rate, IMAGENET_STEM, image_size=224, num_classes=1000)


def cifar_variant(depth: int, growth_rate: int) -> Variant:
    """DenseNet-BC for 32x32 images: three blocks of (depth - 4) / 6 bottleneck layers each.

    The 4 are the first convolution, two transitions and the classifier; a bottleneck layer holds two
    convolutions, hence 6 for one layer in each block.

    Raises:
        ValueError: no such depth exists.
    """
    if depth < 10 or (depth - 4) % 6:
        below = max(10, depth - (depth - 4) % 6)
        raise ValueError(
            f"depth={depth}: three blocks of bottleneck layers need a depth of 6n + 4, at least 10; "
            f"use {below} or {below + 6}"
        )
    layers = (depth - 4) // 6
    return Variant("densenet_cifar", (layers,) * 3, growth_rate, CIFAR_STEM, image_size=32, num_classes=10)


# Blocks and growth rates: paper table 1 (161: the authors' repository; 264: table 1, k=32).
VARIANTS: Dict[str, Variant] = {
    variant.name: variant
    for variant in (
        _imagenet("densenet121", (6, 12, 24, 16)),
        _imagenet("densenet161", (6, 12, 36, 24), growth_rate=48),
        _imagenet("densenet169", (6, 12, 32, 32)),
        _imagenet("densenet201", (6, 12, 48, 32)),
        _imagenet("densenet264", (6, 12, 64, 48)),
        cifar_variant(depth=100, growth_rate=12),
        # Three blocks and their transitions behind the ImageNet stem, in seconds.
        Variant("densenet_tiny", (2, 2, 2), 8, IMAGENET_STEM, image_size=32, num_classes=10),
    )
}
