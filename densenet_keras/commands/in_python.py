"""`densenet_keras.train` and `evaluate` called in somebody's Python: what the command would have checked."""

from __future__ import annotations

import contextlib
import os
from typing import Iterator

from densenet_keras.commands import preflight
from densenet_keras.errors import UsageError
from densenet_keras.launch import folder_lock
from densenet_keras.settings.config import EVALUATE, TRAINING, Config
from densenet_keras.settings.rules import refuse


@contextlib.contextmanager
def training(config: Config) -> Iterator[None]:
    """Holds the run folder of a checked configuration while the body trains into it.

    Raises:
        UsageError: as the command would, or another run is in the folder.
    """
    if config.command not in TRAINING:
        raise UsageError(f"densenet_keras.train cannot {config.command}; use densenet_keras.{EVALUATE}")
    _check(config)
    with folder_lock.held(config.run.log_dir):
        yield


def check_evaluation(config: Config) -> None:
    """Refuses what the command would refuse.

    Raises:
        UsageError: flag, value and rule.
    """
    if config.command != EVALUATE:
        raise UsageError(
            f"densenet_keras.evaluate cannot {config.command}; give it what "
            f'densenet_keras.parse("{EVALUATE}", flags) returns'
        )
    _check(config)


def _check(config: Config) -> None:
    if config.device.rank_size != 1:
        raise refuse(
            "rank_size", config.device.rank_size,
            "a call in Python is one rank; several are started by the command, with callbacks of yours by "
            "--callbacks module:function",
        )  # fmt: skip
    if config.device.dry_run:
        raise refuse("dry_run", True, "is the command's; leave it out")
    preflight.check(config, os.environ)
