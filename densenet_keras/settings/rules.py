"""Which settings can work: each by its own rule, then the ones that depend on each other."""

from __future__ import annotations

import math
import os
import re
import sys
from typing import Any

from densenet_keras.errors import UsageError
from densenet_keras.network.variants import VARIANTS
from densenet_keras.settings.config import EVALUATE, FINETUNE, Config, settings
from densenet_keras.settings.setting import Setting

# The files of a run folder; the log must not be one of them.
RUN_FILES = (
    "run.json", "evaluate.json", "labels.txt", "plan.json", "metrics.jsonl", "rank_table.json", "checkpoint",
    "bad_records.jsonl",
)  # fmt: skip
RUN_FOLDERS = ("rank_logs", "best")
RESERVED_LOG_NAMES = (*RUN_FILES, *RUN_FOLDERS)
# Paths whose files TensorFlow opens, which takes every name for UTF-8, whatever the locale says.
OPENED_BY_TENSORFLOW = ("log_dir", "eval_dir", "restore_path", "restore", "output")


def counted(count: int, noun: str) -> str:
    """A count in words: 1 rank, 2 ranks."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def shown(value: Any) -> str:
    """A setting's value as one would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(value) or "''"
    if value is None:
        return "none"
    return str(value) or "''"


def refuse(name: str, value: Any, rule: str) -> UsageError:
    """The error for a flag whose value breaks `rule`."""
    return UsageError(f"--{name} {shown(value)}: {rule}")


def validate(config: Config) -> None:
    """Refuses settings that no machine and no data could make work.

    The settings of the group `ascend` are checked further by their backend (see `preflight`).

    Raises:
        UsageError: flag, value and rule of the first that fails.
    """
    for setting in settings().values():
        validate_value(setting, config.get(setting.name))
    _validate_model(config)
    _validate_run(config)


def validate_value(setting: Setting, value: Any) -> None:
    """Refuses what a setting may not be, whatever the others are.

    Raises:
        UsageError: flag, value and rule.
    """
    if value is not None:
        for item in value if setting.kind.many else (value,):
            _validate_item(setting.name, item, setting.metadata)
        if setting.is_path:
            _validate_path(setting.name, str(value))


def _validate_path(name: str, value: str) -> None:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", value)
    if scheme:
        raise refuse(
            name, value,
            f"must be a local path, not an address ({scheme.group(1)}:); copy what is there to a local "
            "folder first, and what the run writes back afterwards, or mount the store as a folder",
        )  # fmt: skip
    if value.startswith("~"):
        raise refuse(name, value, "no user of that name has a home folder; a folder called so is ./~...")
    if name in OPENED_BY_TENSORFLOW and not _has_the_bytes_of_utf8(value):
        raise refuse(
            name, value,
            f"the locale of this environment is not UTF-8 ({sys.getfilesystemencoding()}), and TensorFlow "
            "would take that name for another; set PYTHONUTF8=1, or choose a name in ASCII",
        )  # fmt: skip


def _has_the_bytes_of_utf8(path: str) -> bool:
    try:
        return os.fsencode(path) == path.encode("utf-8")
    except UnicodeEncodeError:
        return False


def _validate_item(name: str, value: Any, metadata: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise refuse(name, value, "must be a finite number")
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        raise refuse(name, value, "is not UTF-8, which TensorFlow needs; rename it, or reach it by a link")
    if isinstance(value, str) and "\0" in value:
        raise refuse(name, value.replace("\0", "\\0"), "must not hold a null character")
    choices = metadata["choices"]
    if choices is not None and value not in choices:
        raise refuse(name, value, f"must be one of {', '.join(choices)}")
    rule = metadata["rule"]
    if rule is not None and not rule.holds(value):
        raise refuse(name, value, rule.text)


def _validate_model(config: Config) -> None:
    try:
        VARIANTS[config.model.model].with_stem(config.model.stem)
    except ValueError as error:
        raise UsageError(f"--{error}") from error


def _validate_run(config: Config) -> None:
    optimizer, run = config.optimizer, config.run
    if optimizer.warmup_epochs > optimizer.T_max:
        raise refuse(
            "warmup_epochs",
            optimizer.warmup_epochs,
            f"must be at most --T_max ({optimizer.T_max}), which includes the warm-up",
        )
    if run.log_name in RESERVED_LOG_NAMES or run.log_name.startswith("model.ckpt-"):
        raise refuse("log_name", run.log_name, "is a name that a run folder needs itself; take another")
    if config.command == FINETUNE and run.mode == "evaluate":
        raise refuse("mode", run.mode, "finetune.py trains; use evaluate.py")
    if config.command == FINETUNE and not run.restore_path:
        raise UsageError("--restore is missing: finetune.py needs the checkpoint to start from")
    if run.json and config.command != EVALUATE and run.mode != "evaluate":
        raise refuse("json", run.json, "has effect only in evaluate.py and --mode evaluate")
