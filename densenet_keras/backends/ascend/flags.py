"""What the training flags of an NPU run ask for, checked before any process starts; no TensorFlow."""

from __future__ import annotations

import re
from typing import List, NamedTuple, Optional

from densenet_keras.backends.ascend import chips, option_keys, work_folder
from densenet_keras.backends.ascend import options as npu_options
from densenet_keras.errors import UsageError
from densenet_keras.settings.config import Config

_MOST_SEGMENTS = 8


class LossScale(NamedTuple):
    """How the loss is scaled against float16 underflow."""

    kind: str  # none, fixed or dynamic
    value: float  # of a fixed scale


class GradientSplit(NamedTuple):
    """How gradients are fused for their exchange."""

    kind: str  # idx or size
    values: List[int]


def validate(config: Config) -> None:
    """Everything about the NPU flags that can be known before processes start.

    Raises:
        UsageError: see `npu_options.session_options`, `loss_scale` and `gradient_split`.
    """
    npu_options.session_options(config, 0)
    loss_scale(config)
    gradient_split(config)


def precision(config: Config) -> str:
    """The mode of precision that takes effect, in either form of the option."""
    given = dict(option.partition("=")[::2] for option in config.ascend.npu_option)
    return given.get(option_keys.PRECISION_MODE_V2, config.ascend.precision_mode)


def loss_scale(config: Config) -> LossScale:
    """What --loss_scale asks for.

    Raises:
        UsageError: neither none nor dynamic nor a number of at least 1.
    """
    text = config.ascend.loss_scale
    if text in ("none", "dynamic"):
        return LossScale(text, 1.0)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 1.0 <= value < float("inf"):
        raise UsageError(f"--loss_scale {text}: none, dynamic, or a number of at least 1, such as 512")
    return LossScale("fixed", value)


def gradient_split(config: Config) -> Optional[GradientSplit]:
    """What --gradient_split asks for; None if nothing.

    Raises:
        UsageError: not idx: with ascending indices or size: with percentages of 100 in all.
    """
    text = config.ascend.gradient_split
    if not text:
        return None
    kind, _, numbers = text.partition(":")
    if kind not in ("idx", "size") or not re.fullmatch(r"\d+(,\d+)*", numbers):
        raise UsageError(f"--gradient_split {text}: idx:159,363 or size:60,20,20, whole numbers")
    values = [int(number) for number in numbers.split(",")]
    if len(values) > _MOST_SEGMENTS:
        raise UsageError(f"--gradient_split {text}: {len(values)} segments, at most {_MOST_SEGMENTS}")
    if kind == "idx" and values != sorted(set(values)):
        raise UsageError(f"--gradient_split {text}: each index must be larger than the one before")
    if kind == "size" and (sum(values) != 100 or 0 in values):
        raise UsageError(f"--gradient_split {text}: percentages above 0 adding up to 100, got {sum(values)}")
    return GradientSplit(kind, values)


def check_gradient_split(config: Config, gradients: int) -> None:
    """Whether a graph of so many gradients can be split as asked; before anything compiles.

    Raises:
        UsageError: the last index is not that of the last gradient.
    """
    split = gradient_split(config)
    if split is None or split.kind != "idx" or split.values[-1] == gradients - 1:
        return
    raise UsageError(
        f"--gradient_split {config.ascend.gradient_split} ends with {split.values[-1]}, but this graph has "
        f"{gradients} gradients, so the last index must be {gradients - 1}"
    )


def notes(config: Config) -> List[str]:
    """What a user of these flags should know, a sentence each."""
    flags, chip = config.ascend, chips.of(config)
    texts = []
    mode = precision(config)
    if config.trains and flags.loss_scale == "none" and mode in option_keys.MIXED_FLOAT16:
        happens = (
            f"saturates on the {chip.name}, no NaN appears, and --loss_scale none does not look for it"
            if chip.saturates
            else f"gives Inf or NaN on the {chip.name}, and ends a run with --loss_scale none"
        )
        texts.append(
            f"float16 overflow {happens}; --loss_scale 1 skips and counts steps that overflow without "
            "scaling anything"
        )
    if mode in option_keys.ORIGINAL and not chip.has_float32_convolutions:
        texts.append(f"convolutions have no float32 on the {chip.name}: {mode} will not compile")
    if config.trains and flags.precision_mode == "force_fp16":
        texts.append("the adapter's documents know --precision_mode force_fp16 in inference alone")
    if flags.gradient_split and config.device.rank_size == 1:
        texts.append("--gradient_split changes nothing with one rank")
    if not work_folder.own_folder(config, 0):
        texts.append(
            f"the compiler of every rank leaves its files in the current folder: it takes no path such as "
            f"that of --log_dir {config.run.log_dir}; letters, digits, _, - and . would do"
        )
    records = flags.profiling or flags.dump or flags.overflow_debug
    loop = config.run.iterations_per_loop
    if config.trains and records and (not loop or loop > 10):
        texts.append(
            "a profile or a dump covers every iteration on the device; a small --iterations_per_loop and few "
            "steps keep it readable"
        )
    return texts
