"""What lies in a run folder: checkpoints and run.json, found without TensorFlow."""

from __future__ import annotations

import os
import re
from typing import List, Optional

from densenet_keras import config
from densenet_keras.config import TRAINING, Config

RUN_JSON = "run.json"

_DATA = re.compile(r"(?P<prefix>.+)\.data-(?P<shard>\d{5})-of-(?P<shards>\d{5})$")
_PARTS = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")


def checkpoint_prefix(path: str) -> str:
    """`path`, or if it is one of the files of a checkpoint, the name that TensorFlow knows it by."""
    return _PARTS.sub("", path)


def checkpoints(path: str) -> List[str]:
    """The prefixes of the whole checkpoints that `path` names, oldest step first.

    `path` is a folder, or the prefix of one checkpoint. An index whose data files are not all there
    does not count.
    """
    folder = folder_of(path)
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    whole = [name[: -len(".index")] for name in names if name.endswith(".index")]
    whole = [name for name in whole if _has_data(name, names)]
    if not os.path.isdir(path):
        whole = [name for name in whole if name == os.path.basename(path)]
    return [os.path.join(folder, name) for name in sorted(whole, key=_step)]


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
    """The configuration of the run in log_dir that training with `config` would continue, if any."""
    if config.command not in TRAINING or not checkpoints(config.run.log_dir):
        return None
    return stored_config(config.run.log_dir)


def _has_data(prefix: str, names: List[str]) -> bool:
    matches = [match for match in map(_DATA.match, names) if match and match.group("prefix") == prefix]
    return bool(matches) and len(matches) == int(matches[0].group("shards"))


def _step(prefix: str) -> int:
    digits = re.search(r"-(\d+)$", prefix)
    return int(digits.group(1)) if digits else -1
