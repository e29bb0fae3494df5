"""A file of weights, understood: which network it is of, and what of it fits a given one."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from densenet_keras.errors import UsageError
from densenet_keras.network.variables import CLASSIFIER
from densenet_keras.network.variants import CIFAR_STEM, ORIGINAL_STEM, STANDARD, VARIANTS
from densenet_keras.network.weights import formats
from densenet_keras.network.weights.names import (
    LAYOUTS,
    ORIGINAL_LAYOUT,
    OWN_LAYOUT,
    Layout,
    Place,
    layout_of,
)
from densenet_keras.network.weights.tensors import Shape, Tensors, several

_STATE, _NO_WEIGHT = "optimizer state or a counter", "no weight of a DenseNet"
BACKGROUND_CLASSES = 1001  # ImageNet's 1,000 behind a class 0 that no picture has


class Source(NamedTuple):
    """A file and what it holds.

    Attributes:
        path: of the file, or the prefix of a TensorFlow checkpoint.
        places: where each array that is a weight belongs.
    """

    path: str
    tensors: Tensors
    layout: Layout
    places: Dict[str, Place]

    def shapes(self) -> Dict[str, Shape]:
        """Our variables in the file, with the shapes that they would have here."""
        return {place.variable: self._turned(name) for name, place in self.places.items()}

    def _turned(self, name: str) -> Shape:
        shape, axes = self.tensors.shapes[name], self.places[name].axes
        if len(axes) != len(shape):
            return tuple(shape)
        return tuple(shape[axis] for axis in axes)

    def value(self, name: str) -> np.ndarray:
        """An array of the file as ours: its axes turned, float32.

        Raises:
            UsageError: it cannot be read, or holds numbers that are not finite.
        """
        array, axes = self.tensors.read(name), self.places[name].axes
        turned = np.ascontiguousarray(np.transpose(array, axes) if axes else array, dtype=np.float32)
        if not np.all(np.isfinite(turned)):
            raise UsageError(f"{self.path}: {name} holds infinite or undefined values; no network can use it")
        return turned


class Match(NamedTuple):
    """A file compared with a network.

    Attributes:
        loaded: our variables that the file fills, with the names of its arrays.
        left_out: arrays of the file that the network does not take, with the reason.
        missing: our variables that the file does not fill, with the reason.
    """

    loaded: Dict[str, str]
    left_out: Dict[str, str]
    missing: Dict[str, str]

    @property
    def missing_backbone(self) -> List[str]:
        """All that is missing but the classifier."""
        return [name for name in self.missing if not name.startswith(CLASSIFIER)]


def open_source(path: str) -> Source:
    """The weights in `path`, recognised by what it holds.

    Args:
        path: a file, or the prefix of a TensorFlow checkpoint.

    Raises:
        UsageError: it is not a file of weights, is damaged, or is of another network.
    """
    tensors = formats.read(path)
    layout = layout_of(tensors.shapes)
    if layout is None:
        known = ", ".join(each.name for each in LAYOUTS)
        raise UsageError(
            f"{path} ({tensors.format}) holds no weights of a DenseNet under names that are known here: "
            f"{several(sorted(tensors.shapes)) or 'nothing'}; known are those of {known}"
        )
    places = layout.translate(list(tensors.shapes))
    taken: Dict[str, str] = {}
    for name, place in places.items():
        other = taken.setdefault(place.variable, name)
        if other != name:
            raise UsageError(f"{path}: {other} and {name} are both {place.variable}; leave one of them out")
    return Source(path, tensors, layout, places)


def network_settings(source: Source) -> Dict[str, Any]:
    """The settings of the network that the file is of, by name, as far as it tells.

    Raises:
        UsageError: it is of no network that is known here.
    """
    shapes = source.shapes()
    blocks, growth_rate, bottleneck = _dense_layers(shapes)
    names = [name for name, variant in VARIANTS.items() if variant.blocks == blocks]
    if not names or growth_rate is None or not bottleneck:
        listed = "; ".join(f"{name} {variant.blocks}" for name, variant in VARIANTS.items())
        raise UsageError(
            f"{source.path} ({source.layout.name}) is of a network with {blocks} dense layers in its blocks; "
            f"there are: {listed}"
        )
    stem = shapes.get("stem_conv/kernel")
    side = 3 if VARIANTS[names[0]].stem == CIFAR_STEM else 7
    if stem is not None and stem[:3] != (side, side, 3):
        raise UsageError(
            f"{source.path} ({source.layout.name}): the first convolution has the shape {stem}, that of "
            f"{names[0]} {(side, side, 3, stem[-1])}; other stems, such as timm's, are not built here"
        )
    found: Dict[str, Any] = {
        "model": names[0],
        "growth_rate": growth_rate,
        "bn_size": bottleneck // growth_rate,
        "stem": _stem(source, shapes, names[0]),
        "bn_epsilon": source.tensors.facts.get("bn_epsilon", source.layout.bn_epsilon),
        "bn_momentum": source.tensors.facts.get("bn_momentum", source.layout.bn_momentum),
    }
    if f"{CLASSIFIER}bias" in shapes:
        found["num_classes"] = shapes[f"{CLASSIFIER}bias"][0]
    return found


def _stem(source: Source, shapes: Mapping[str, Shape], model: str) -> str:
    """The original's names tell; in a checkpoint of this project, that there is no batch norm to its stem."""
    own = source.layout is OWN_LAYOUT and VARIANTS[model].stem != CIFAR_STEM
    lacks_norm = own and "stem_conv/kernel" in shapes and "stem_bn/gamma" not in shapes
    return ORIGINAL_STEM if source.layout is ORIGINAL_LAYOUT or lacks_norm else STANDARD


def _dense_layers(shapes: Mapping[str, Shape]) -> Tuple[Tuple[int, ...], Optional[int], int]:
    """Layers in each block, growth rate, and width of the 1x1 convolutions."""
    layers: Dict[int, int] = {}
    growth_rate, bottleneck = None, 0
    for name, shape in shapes.items():
        match = re.fullmatch(r"block(\d+)/layer(\d+)/(.+)", name)
        if match is None:
            continue
        layers[int(match[1])] = max(layers.get(int(match[1]), 0), int(match[2]))
        if match[3] == "conv2/kernel" and len(shape) == 4:
            growth_rate, bottleneck = shape[3], shape[2]
    blocks = tuple(layers.get(block, 0) for block in range(1, max(layers, default=0) + 1))
    return blocks, growth_rate, bottleneck


def match(source: Source, wanted: Mapping[str, Shape]) -> Match:
    """The file against the variables of a network, by name and shape; no array is read."""
    here = source.shapes()
    loaded: Dict[str, str] = {}
    left_out: Dict[str, str] = {}
    reasons: Dict[str, str] = {}
    for name in source.tensors.shapes:
        place = source.places.get(name)
        if place is None:
            state = source.layout.is_state(name)
            left_out[name] = _STATE if state else _NO_WEIGHT
        elif place.variable not in wanted:
            left_out[name] = f"the network takes no {place.variable}"
        elif here[place.variable] != tuple(wanted[place.variable]):
            reason = f"shape {here[place.variable]} in the file, {tuple(wanted[place.variable])} here"
            left_out[name] = reasons[place.variable] = reason
        else:
            loaded[place.variable] = name
    missing = {name: reasons.get(name, "not in the file") for name in wanted if name not in loaded}
    return Match(loaded, left_out, missing)


def require(source: Source, found: Match, missing: Sequence[str], remedy: str) -> None:
    """Refuses a file that lacks variables `missing`.

    Raises:
        UsageError: naming some of them, the reasons and the remedy.
    """
    if not missing:
        return
    over = [name for name, reason in found.left_out.items() if reason == _NO_WEIGHT]
    leftover = f". It also holds {several(over)}, not a known name" if over else ""
    total = len(found.loaded) + len(found.missing)
    raise UsageError(
        f"{source.path} ({source.layout.name}, {source.tensors.format}) fills {len(found.loaded)} of {total} "
        f"variables; missing: {several(missing)} ({found.missing[missing[0]]}){leftover}; {remedy}"
    )


def values(source: Source, found: Match) -> Dict[str, np.ndarray]:
    """Our variables that the file fills, with their values.

    Raises:
        UsageError: one cannot be read or holds undefined values.
    """
    return {variable: source.value(name) for variable, name in found.loaded.items()}


def preprocessing_of(source: Source, num_classes: Optional[int]) -> Optional[str]:
    """The preprocessing that the network was trained with; None where the file cannot tell.

    The published weights of a layout have one; a classifier of another width is somebody's own training,
    whose pictures may have been scaled in any way.
    """
    published = source.layout.published_classes
    if published is not None and num_classes is not None and num_classes not in published:
        return None
    return source.layout.preprocessing


def label_offset_of(num_classes: int) -> int:
    """The label of the first class in TF-Slim's records of ImageNet, for a network of that many classes."""
    return 0 if num_classes == BACKGROUND_CLASSES else 1
