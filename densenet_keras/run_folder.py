"""The run.json beside checkpoints: what the run that wrote them was configured with."""

from __future__ import annotations

import os
from typing import Optional

from densenet_keras import checkpoint_files, config
from densenet_keras.config import TRAINING, Config

RUN_JSON = "run.json"


def folder_of(path: str) -> str:
    """The folder that `path`, a folder or a checkpoint, lies in."""
    return path if os.path.isdir(path) else os.path.dirname(path) or "."


def stored_config(path: str) -> Optional[Config]:
    """The run.json beside the checkpoints that `path` names; None if there is none.

    Raises:
        UsageError: it cannot be read or belongs to another version.
    """
    file = os.path.join(folder_of(path), RUN_JSON)
    return config.load(file) if os.path.isfile(file) else None


def continued_run(config: Config) -> Optional[Config]:
    """The configuration of the run in log_dir that training with `config` would continue, if any.

    Raises:
        UsageError: its run.json cannot be read or belongs to another version.
    """
    if config.command not in TRAINING or checkpoint_files.newest(config.run.log_dir) is None:
        return None
    return stored_config(config.run.log_dir)
