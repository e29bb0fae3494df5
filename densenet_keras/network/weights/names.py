"""What the names in a file mean here: pure functions from their names to our variables.

A layout is a family of files that name their arrays alike. What it translates, and how the axes of each
array are turned, is decided by names alone; shapes are compared afterwards (`source`).
"""

from __future__ import annotations

import re
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from densenet_keras.network.preprocessing import TORCH
from densenet_keras.network.variables import NORM_PARTS
from densenet_keras.network.variants import BN_EPSILON, BN_MOMENTUM

# From the file's axes to ours.
AS_IS: Tuple[int, ...] = ()
CONVOLUTION = (2, 3, 1, 0)  # output, input, height, width -> height, width, input, output
DENSE = (1, 0)  # output, input -> input, output


class Place(NamedTuple):
    """Where an array of a file belongs."""

    variable: str
    axes: Tuple[int, ...] = AS_IS  # the order in which ours takes the file's axes; empty: the same


class Layout(NamedTuple):
    """A family of files.

    Attributes:
        name: for people.
        translate: from all names of a file to the places of those that are weights.
        is_state: whether a name is a counter or an optimizer's, which nobody misses.
        bn_epsilon, bn_momentum: of the networks that such files come from. The momentum is ours, the share
            that a moving average keeps: 1 minus Torch's.
        preprocessing: that these networks are trained with; None where such files come from anywhere.
        published_classes: class counts of the published weights, whose preprocessing is known.
    """

    name: str
    translate: Callable[[Sequence[str]], Dict[str, Place]]
    is_state: Callable[[str], bool]
    bn_epsilon: float
    bn_momentum: float
    preprocessing: str = TORCH
    published_classes: Optional[Tuple[int, ...]] = None


def layout_of(names: Iterable[str]) -> Optional[Layout]:
    """The layout that translates most of `names`; None if none translates any."""
    listed = list(names)
    counted = [(len(layout.translate(listed)), layout) for layout in LAYOUTS]
    most, best = max(counted, key=lambda pair: pair[0])
    return best if most else None


def _matching(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda name: compiled.search(name) is not None


# Ours


def _own(names: Sequence[str]) -> Dict[str, Place]:
    ours = re.compile(
        r"(stem_conv|linear|(stem|final)_bn|transition\d+/(bn|conv)|block\d+/layer\d+/(bn|conv)[12])"
        r"/(kernel|bias|gamma|beta|moving_mean|moving_variance)"
    )
    return {name: Place(name) for name in names if ours.fullmatch(name)}


# Torch: torchvision and timm; and MindSpore, whose models were written after them

_TORCH_NORM = dict(zip(("weight", "bias", "running_mean", "running_var"), NORM_PARTS))
_MINDSPORE_NORM = dict(zip(NORM_PARTS, NORM_PARTS))


_FIRST_WORD = re.compile(r"\b(features|classifier)\.")


def _features(names: Sequence[str], norm: Dict[str, str], layer: str, transition: str) -> Dict[str, Place]:
    """Names such as features.denseblock1.denselayer1.norm1.weight.

    Args:
        norm: parts of a batch normalisation and what they are called here.
        layer: pattern of a layer in a block, with a group that is its number.
        transition: what stands between a transition and its parts.
    """
    first = 0 if r"cell_list" in layer else 1  # the number of the first layer
    patterns: List[Tuple[str, Callable[[Any], str]]] = [
        (r"features\.conv0", lambda m: "stem_conv"),
        (r"features\.norm0", lambda m: "stem_bn"),
        (r"features\.norm5", lambda m: "final_bn"),
        (r"classifier", lambda m: "linear"),
        (rf"features\.transition(\d+)\.{transition}norm", lambda m: f"transition{m[1]}/bn"),
        (rf"features\.transition(\d+)\.{transition}conv", lambda m: f"transition{m[1]}/conv"),
        (
            # torchvision's first models wrote norm.1 for norm1, which its own loader still takes.
            rf"features\.denseblock(\d+)\.{layer}\.(norm|conv)\.?([12])",
            lambda m: f"block{m[1]}/layer{int(m[2]) + 1 - first}/{ {'norm': 'bn'}.get(m[3], m[3]) }{m[4]}",
        ),
    ]
    found = {}
    for name in names:
        # Wrappers such as DataParallel put a name in front of the two that all names begin with.
        first_word = _FIRST_WORD.search(name)
        inner = name[first_word.start() :] if first_word else name
        module, _, part = inner.rpartition(".")
        for pattern, ours in patterns:
            match = re.fullmatch(pattern, module)
            place = _torch_part(ours(match), part, norm) if match else None
            if place:
                found[name] = place
    return found


def _torch_part(module: str, part: str, norm: Dict[str, str]) -> Optional[Place]:
    if module == "linear":
        return {"weight": Place("linear/kernel", DENSE), "bias": Place("linear/bias")}.get(part)
    if re.search("conv[12]?$", module):
        return Place(f"{module}/kernel", CONVOLUTION) if part == "weight" else None
    return Place(f"{module}/{norm[part]}") if part in norm else None


def _torch(names: Sequence[str]) -> Dict[str, Place]:
    return _features(names, _TORCH_NORM, r"denselayer(\d+)", "")


def _mindspore(names: Sequence[str]) -> Dict[str, Place]:
    weights = [name for name in names if not _MINDSPORE_STATE(name)]
    return _features(weights, _MINDSPORE_NORM, r"cell_list\.(\d+)", r"features\.")


_MINDSPORE_STATE = _matching(
    r"^(moments?|accum|stat|velocity|adam_[mv]|moment[12])\.|^(global_step|epoch_num|step_num|learning_rate"
    r"|momentum|weight_decay|scale_sense|current_iterator_step|last_overflow_iterator_step)$"
)

# Keras Applications

_KERAS_PARTS = {"0_bn": "bn1", "1_conv": "conv1", "1_bn": "bn2", "2_conv": "conv2"}
_KERAS_LAYER = re.compile(
    r"(?:^|/)(?:conv1[/_](conv|bn)|(bn)|pool(\d)_(bn|conv)|conv(\d)_block(\d+)_(\d_\w+))$"
)
_KERAS_HEADS = r"(fc1000|predictions|probs|logits|dense(_\d+)?)"  # and what Keras calls a user's own


def _keras(names: Sequence[str]) -> Dict[str, Place]:
    found = {}
    kernels = (re.fullmatch(rf"(?:.*/)?{_KERAS_HEADS}/kernel", name) for name in names)
    heads = {kernel[1] for kernel in kernels if kernel}
    for name in names:
        layer, _, part = name.rpartition("/")
        if part not in (*NORM_PARTS, "kernel", "bias"):
            continue
        ours = _keras_layer(layer)
        if ours is None and len(heads) == 1 and layer.rpartition("/")[2] in heads:
            ours = "linear"
        if ours is not None:
            found[name] = Place(f"{ours}/{part}")
    return found


def _keras_layer(layer: str) -> Optional[str]:
    match = _KERAS_LAYER.search(layer)
    if match is None:
        return None
    if match[1]:
        return f"stem_{match[1]}"
    if match[2]:
        return "final_bn"
    if match[3]:
        return f"transition{int(match[3]) - 1}/{match[4]}"
    if match[7] not in _KERAS_PARTS:
        return None
    return f"block{int(match[5]) - 1}/layer{match[6]}/{_KERAS_PARTS[match[7]]}"


# The original implementation: scopes for batch normalisation, and convolutions by their number


ORIGINAL_MARK = b"_bottleN_"  # in the names of its batch norms, and in nobody else's


def _original(names: Sequence[str]) -> Dict[str, Place]:
    """Its convolutions are conv2d, conv2d_1 and so on in the order of the graph, whatever scope they are in.

    So their places follow from how many layers each block has, which the names of the norms tell.
    """
    blocks: Dict[str, int] = {}
    for name in names:
        match = re.fullmatch(r"dense_(\d+|final)_bottleN_(\d+)_batch1/gamma", name)
        if match:
            blocks[match[1]] = max(blocks.get(match[1], 0), int(match[2]) + 1)
    order = sorted((key for key in blocks if key != "final"), key=int)
    order += ["final"] if "final" in blocks else []
    norms, convolutions = {"linear_batch": "final_bn"}, ["stem_conv"]
    for number, key in enumerate(order, start=1):
        for layer in range(blocks[key]):
            ours = f"block{number}/layer{layer + 1}"
            for part in ("1", "2"):
                norms[f"dense_{key}_bottleN_{layer}_batch{part}"] = f"{ours}/bn{part}"
                convolutions.append(f"{ours}/conv{part}")
        if key != "final":
            norms[f"trans_{key}_batch1"] = f"transition{number}/bn"
            convolutions.append(f"transition{number}/conv")
    if not blocks:
        return {}
    numbered = {f"conv2d_{number}" if number else "conv2d": ours for number, ours in enumerate(convolutions)}
    found = {f"{theirs}/kernel": Place(f"{ours}/kernel") for theirs, ours in numbered.items()}
    for theirs, ours in norms.items():
        found.update({f"{theirs}/{part}": Place(f"{ours}/{part}") for part in NORM_PARTS})
    found.update({name: Place(name) for name in ("linear/kernel", "linear/bias")})
    return {name: place for name, place in found.items() if name in set(names)}


_TENSORFLOW_STATE = _matching(
    r"/(Momentum|Adam|Adam_1|RMSProp|RMSProp_1|biased|local_step)$|^global_step$|loss_scale"
)

_IMAGENET_CLASSES = (1000, 1001)  # 1,001 where class 0 is the background of TensorFlow's labels
TORCH_LAYOUT = Layout(
    "torchvision or timm", _torch, _matching(r"num_batches_tracked$"), 1e-5, 0.9,
    published_classes=_IMAGENET_CLASSES,
)  # fmt: skip
MINDSPORE_LAYOUT = Layout(
    "MindSpore (MindCV)", _mindspore, _MINDSPORE_STATE, 1e-5, 0.9, published_classes=_IMAGENET_CLASSES
)
KERAS_LAYOUT = Layout(
    "Keras Applications", _keras, _matching(r"^(iterations|optimizer)\b"), 1.001e-5, 0.99,
    published_classes=_IMAGENET_CLASSES,
)  # fmt: skip
ORIGINAL_LAYOUT = Layout("the original implementation", _original, _TENSORFLOW_STATE, 1e-3, 0.9)
OWN_LAYOUT = Layout("this project", _own, _TENSORFLOW_STATE, BN_EPSILON, BN_MOMENTUM)
LAYOUTS = (OWN_LAYOUT, ORIGINAL_LAYOUT, KERAS_LAYOUT, TORCH_LAYOUT, MINDSPORE_LAYOUT)
