"""The variables of a network by name and shape, without building it. No TensorFlow."""

from __future__ import annotations

from typing import Dict, Tuple

from densenet_keras.network.variants import BN_SIZE, CIFAR_STEM, COMPRESSION, IMAGENET_STEM, Variant

Shape = Tuple[int, ...]
CLASSIFIER = "linear/"
# Of each batch normalisation, in the order of Keras.
NORM_PARTS = ("gamma", "beta", "moving_mean", "moving_variance")


def variables(variant: Variant, num_classes: int, bn_size: int = BN_SIZE) -> Dict[str, Shape]:
    """Name to shape of every variable of the network that `densenet.densenet` builds, in its order."""
    found: Dict[str, Shape] = {}
    growth, channels = variant.growth_rate, variant.init_features

    def norm(name: str, width: int) -> None:
        found.update({f"{name}/{part}": (width,) for part in NORM_PARTS})

    side = 3 if variant.stem == CIFAR_STEM else 7
    found["stem_conv/kernel"] = (side, side, 3, channels)
    if variant.stem == IMAGENET_STEM:
        norm("stem_bn", channels)
    for block, num_layers in enumerate(variant.blocks, start=1):
        if block > 1:
            name, kept = f"transition{block - 1}", int(COMPRESSION * channels)
            norm(f"{name}/bn", channels)
            found[f"{name}/conv/kernel"] = (1, 1, channels, kept)
            channels = kept
        for layer in range(1, num_layers + 1):
            name = f"block{block}/layer{layer}"
            norm(f"{name}/bn1", channels)
            found[f"{name}/conv1/kernel"] = (1, 1, channels, bn_size * growth)
            norm(f"{name}/bn2", bn_size * growth)
            found[f"{name}/conv2/kernel"] = (3, 3, bn_size * growth, growth)
            channels += growth
    norm("final_bn", channels)
    found[f"{CLASSIFIER}kernel"] = (channels, num_classes)
    found[f"{CLASSIFIER}bias"] = (num_classes,)
    return found
