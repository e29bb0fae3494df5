"""What a run was configured with: its run.json, and the manifests of its checkpoints. No TensorFlow."""

from __future__ import annotations

import json
import os
from typing import Any, Optional

from densenet_keras import files
from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import manifest
from densenet_keras.errors import UsageError
from densenet_keras.settings import config
from densenet_keras.settings.config import EVALUATE, TRAINING, Config, ModelConfig
from densenet_keras.settings.rules import validate

RUN_JSON = "run.json"
EVALUATE_JSON = "evaluate.json"
NETWORK_JSON = "network.json"  # beside arrays that were exported: the group of settings of the model
NEXT_JSON = os.path.join("rank_logs", "next.json")


def folder_of(path: str) -> str:
    """The folder that `path`, a folder or a checkpoint, lies in."""
    return path if os.path.isdir(path) else os.path.dirname(path) or "."


def stored_config(path: str) -> Optional[Config]:
    """The settings of the run whose folder or checkpoint `path` is; None if nothing tells them.

    Those of a checkpoint stand in its manifest, or, where it has none, in the run.json beside it; those of a
    folder in its run.json, or, where it has none, in the manifest of its newest checkpoint.

    Raises:
        UsageError: they cannot be read or belong to another version.
    """
    file = os.path.join(folder_of(path), RUN_JSON)
    if os.path.isdir(path):
        stored = _of_file(file)
        if stored is None and checkpoint_files.holds_checkpoints(path):
            return _of_manifest(checkpoint_files.resolve(path))
        return stored
    return _of_manifest(checkpoint_files.prefix_of(path)) or _of_file(file)


def _of_file(file: str) -> Optional[Config]:
    if not os.path.lexists(file):
        return None
    stored = config.load(file)
    try:
        validate(stored)  # it may have been edited
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error
    return stored


def _of_manifest(prefix: str) -> Optional[Config]:
    values = of_checkpoint(prefix, "configuration")
    if not isinstance(values, dict):
        return None
    try:
        return Config.from_json(values)
    except UsageError as error:
        raise UsageError(f"{prefix}{manifest.ENDING}: {error}") from error


def of_checkpoint(prefix: str, name: str) -> Any:
    """What the manifest of checkpoint `prefix` says under `name`; None if nothing.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        found = manifest.readable(prefix)
    except OSError as error:
        raise UsageError(f"{prefix}{manifest.ENDING} cannot be read: {error.strerror}") from error
    return found.get(name) if found else None


def stored_network(path: str) -> Optional[ModelConfig]:
    """The network of the weights in `path`, by their manifest or the run.json or network.json beside them.

    None if none of them is there.

    Raises:
        UsageError: it cannot be read or belongs to another version.
    """
    stored = stored_config(path)
    if stored is not None:
        return stored.model
    file = os.path.join(folder_of(path), NETWORK_JSON)
    if not os.path.isfile(file):
        return None
    try:
        with open(file, encoding="utf-8") as opened:
            return Config.from_json({"model": json.load(opened)}).model
    except (OSError, ValueError, RecursionError, UsageError) as error:
        raise UsageError(f"{file} does not hold the settings of a network: {error}") from error


def continued_run(config: Config) -> Optional[Config]:
    """The configuration of the run in log_dir that training with `config` would continue, if any.

    Raises:
        UsageError: its run.json cannot be read or belongs to another version.
    """
    if config.command not in TRAINING or checkpoint_files.newest(config.run.log_dir) is None:
        return None
    stored = stored_config(config.run.log_dir)
    if stored is not None and stored.device.fast_cpu is None:
        return stored.replace(fast_cpu=False)  # of a version that had TensorFlow's own operations only
    return stored


def write_configuration(config: Config) -> str:
    """Puts `config` into its run folder as that of the run; returns the path. See `write_request`."""
    return _write(config, EVALUATE_JSON if config.command == EVALUATE else RUN_JSON)


def write_request(config: Config) -> str:
    """Puts `config` into its run folder, whole or not at all, for its ranks to read; returns the path.

    Where a run would be continued, its run.json stays as it is until training goes on: the command may
    still fail, or find nothing to train.

    Raises:
        UsageError: the folder cannot be written.
    """
    if continued_run(config) is not None:
        return _write(config, NEXT_JSON)
    return write_configuration(config)


def _write(config: Config, name: str) -> str:
    path = os.path.join(config.run.log_dir, name)
    try:
        files.write_json(path, config.to_json())
    except OSError as error:
        raise UsageError(
            f"--log_dir {config.run.log_dir}: cannot be written ({error.strerror}); "
            "make room, or choose a folder that you may write to"
        ) from error
    return path
