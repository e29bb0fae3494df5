"""The resolved configuration of one command: a frozen record of all settings and its JSON round trip.

The settings themselves stand in `settings`; run.json is `Config.to_json()`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass
from typing import Any, Dict

import densenet_keras
from densenet_keras.errors import UsageError
from densenet_keras.settings.ascend import AscendConfig
from densenet_keras.settings.device import DeviceConfig
from densenet_keras.settings.groups import (
    MODELS,
    DataConfig,
    FinetuneConfig,
    ModelConfig,
    OptimizerConfig,
)
from densenet_keras.settings.run import RunConfig
from densenet_keras.settings.setting import (
    ALL,
    EVALUATE,
    FINETUNE,
    PREDICT,
    TRAIN,
    TRAINING,
    Setting,
    from_plain,
    settings_of,
)

__all__ = [
    "ALL", "EVALUATE", "FINETUNE", "GROUPS", "MODELS", "PREDICT", "TRAIN", "TRAINING",
    "AscendConfig", "Config", "DataConfig", "DeviceConfig", "FinetuneConfig", "ModelConfig",
    "OptimizerConfig", "RunConfig",
    "fields", "group_of", "load", "settings",
]  # fmt: skip


@dataclass(frozen=True)
class Config:
    """One command, all of it. Flag names are unique over the groups."""

    command: str = TRAIN
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    run: RunConfig = RunConfig()
    device: DeviceConfig = DeviceConfig()
    ascend: AscendConfig = AscendConfig()

    @staticmethod
    def defaults(command: str) -> Config:
        """What `command` does without a single flag, not yet resolved."""
        changed = {
            name: field.metadata["command_defaults"][command]
            for name, field in fields().items()
            if command in field.metadata["command_defaults"]
        }
        return Config(command=command).replace(**changed)

    def to_json(self) -> Dict[str, Any]:
        """The configuration as nested plain objects."""
        return {"version": densenet_keras.__version__, **dataclasses.asdict(self)}

    @staticmethod
    def from_json(values: Dict[str, Any]) -> Config:
        """The inverse of `to_json`; settings that are missing take the command's defaults.

        Raises:
            UsageError: a group or name that no flag has (a file of another version, or a typing
                error), or a value of the wrong type.
        """
        command = values.get("command", TRAIN)
        if command not in (*ALL, PREDICT):
            raise UsageError(f"command {command!r}: must be one of {', '.join(ALL)}")
        unknown_groups = sorted(set(values) - set(GROUPS) - {"command", "version"})
        if unknown_groups:
            raise UsageError(f"{unknown_groups[0]} is not a group of settings of this version; remove it")
        changes: Dict[str, Any] = {}
        for group in GROUPS:
            given = values.get(group, {})
            if not isinstance(given, dict):
                raise UsageError(f"{group}: must be one JSON object of settings")
            for name, value in given.items():
                if name not in fields() or group not in (group_of(name), _MOVED.get(name)):
                    raise UsageError(f"{group}.{name} is not a setting of this version; remove it")
                try:
                    setting = settings()[name]
                    changes[name] = setting.completed(from_plain(setting.kind, value))
                except ValueError as error:
                    raise UsageError(f"{group}.{name} {json.dumps(value)}: {error}") from error
        return Config.defaults(command).replace(**changes)

    @property
    def trains(self) -> bool:
        """Whether the command trains, rather than evaluating checkpoints that are there."""
        return self.command in TRAINING and self.run.mode != "evaluate"

    def get(self, name: str) -> Any:
        """The value of one setting; KeyError if there is none of that name."""
        return getattr(getattr(self, group_of(name)), name)

    def replace(self, **values: Any) -> Config:
        """A copy with the named settings changed: `config.replace(batch_size=8, lr=0.2)`."""
        changes: Dict[str, Any] = {}
        for name, value in values.items():
            if name == "command":
                changes["command"] = value
                continue
            group = group_of(name)
            current = changes.get(group, getattr(self, group))
            changes[group] = dataclasses.replace(current, **{name: value})
        return dataclasses.replace(self, **changes)


# Settings that a run.json of an earlier version has in another group.
_MOVED = {"dry_run": "ascend"}

GROUPS = {
    "data": DataConfig,
    "model": ModelConfig,
    "optimizer": OptimizerConfig,
    "finetune": FinetuneConfig,
    "run": RunConfig,
    "device": DeviceConfig,
    "ascend": AscendConfig,
}


@functools.lru_cache(maxsize=None)
def fields() -> Dict[str, Any]:
    """Every setting's dataclass field by name, in the order of `settings`."""
    return {f.name: f for kind in GROUPS.values() for f in dataclasses.fields(kind)}


@functools.lru_cache(maxsize=None)
def settings() -> Dict[str, Setting]:
    """Every setting by name, in the order of `groups`."""
    return {name: setting for kind in GROUPS.values() for name, setting in settings_of(kind).items()}


def group_of(name: str) -> str:
    """The group that holds setting `name`; KeyError if none does."""
    return _groups_by_name()[name]


@functools.lru_cache(maxsize=None)
def _groups_by_name() -> Dict[str, str]:
    return {f.name: group for group, kind in GROUPS.items() for f in dataclasses.fields(kind)}


def load(path: str) -> Config:
    """The configuration in a run.json.

    Raises:
        UsageError: the file is missing, not JSON, or holds settings this version does not know.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:  # Windows' editors put a mark before the text
            values = json.load(file)
    except OSError as error:
        raise UsageError(f"configuration {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"configuration {path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"configuration {path} must hold one JSON object, as run.json does")
    try:
        return Config.from_json(values)
    except UsageError as error:
        raise UsageError(f"configuration {path}: {error}") from error
