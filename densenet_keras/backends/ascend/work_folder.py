"""Where the compiler of one rank leaves its files: a folder of the rank's own. No TensorFlow.

Without one they go to the folder that the process was started in, which ranks share: kernel_meta,
fusion_result.json and others, each rank over the others' [W1]. (Sources are in docs/ascend.md.)
"""

from __future__ import annotations

import os
import re
from typing import Mapping

from densenet_keras.errors import UsageError
from densenet_keras.settings.config import Config

# Read by the libraries of the newer adapter, which also move their logs there. An option of the session,
# which both generations read, takes precedence over it for the files of operators.
VARIABLE = "ASCEND_WORK_PATH"
OPTION = "debug_dir"

_NAMES = re.compile(r"[\w./-]+", re.ASCII)  # what a path may consist of, by the vendor's documents


def own_folder(config: Config, rank: int) -> str:
    """The folder of `rank` in the run folder; empty if the libraries could not take its path."""
    folder = os.path.abspath(os.path.join(config.run.log_dir, "rank_logs", f"npu_{rank}"))
    return folder if _NAMES.fullmatch(folder) else ""


def chosen(config: Config, rank: int, environ: Mapping[str, str]) -> str:
    """What `environ` says, else the rank's own folder."""
    return environ.get(VARIABLE) or own_folder(config, rank)


def make(config: Config, rank: int, environ: Mapping[str, str]) -> None:
    """Creates the folder: some releases look for it when they are loaded, and do not create it.

    Raises:
        UsageError: it cannot be created.
    """
    folder = chosen(config, rank, environ)
    if not folder:
        return
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{VARIABLE}: folder {folder} cannot be created ({error.strerror})") from error
