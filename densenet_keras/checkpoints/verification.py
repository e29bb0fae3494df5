"""Whether what lies in a run folder is whole."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Callable, List, NamedTuple, Optional

from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import manifest, reader, run_folder
from densenet_keras.errors import RunError, UsageError

BEST = "best"  # the folder of the best checkpoint in a run folder


class Finding(NamedTuple):
    """What was found of one checkpoint or file."""

    path: str
    whole: bool
    note: str  # what is wrong; of what is whole, how that is known
    step: Optional[int] = None  # of a checkpoint


def verify(path: str, progress: Callable[[str], None] = lambda path: None) -> List[Finding]:
    """Reads every byte of run folder or checkpoint `path`, that of its folder best included.

    Args:
        progress: called with what is read next.

    Raises:
        UsageError: no checkpoint is there.
    """
    if not os.path.isdir(path):
        return [_checkpoint(checkpoint_files.list_checkpoints(path)[0].path, progress)]
    prefixes = checkpoint_files.prefixes_in(path)
    best = os.path.join(path, BEST)
    if not prefixes and not os.path.isdir(best):
        raise UsageError(f"folder {path} holds no checkpoint, no pair of NAME.index and NAME.data-*")
    found = [_configuration(path), _json(os.path.join(path, "plan.json"))]
    findings = [finding for finding in found if finding is not None]
    findings += [_checkpoint(prefix, progress) for prefix in prefixes]
    if os.path.isdir(best):
        with contextlib.suppress(UsageError):  # a run that has not evaluated yet
            findings += verify(best, progress)
    return findings


def _checkpoint(prefix: str, progress: Callable[[str], None]) -> Finding:
    progress(prefix)
    missing = checkpoint_files.missing_files(prefix)
    if missing:
        return Finding(prefix, False, f"{missing[0]} does not exist")
    try:
        marks = manifest.read(prefix)
        step = reader.check_every_byte(prefix)
    except reader.Damaged as error:
        return Finding(prefix, False, error.reason)
    except (RunError, UsageError) as error:
        return Finding(prefix, False, str(error))
    except OSError as error:
        return Finding(prefix, False, f"its manifest could not be read: {error.strerror}")
    named = checkpoint_files.step_of(prefix)
    stored = marks["step"] if marks else step
    if named >= 0 and stored not in (None, named):
        return Finding(prefix, False, f"it is of step {stored}: somebody renamed it", stored)
    how = "by its manifest" if marks else "by TensorFlow's own checksums; it has no manifest"
    return Finding(prefix, True, how, stored)


def _configuration(folder: str) -> Optional[Finding]:
    path = os.path.join(folder, run_folder.RUN_JSON)
    if not os.path.lexists(path):
        return None
    try:
        run_folder.stored_config(folder)
    except UsageError as error:
        return Finding(path, False, str(error))
    return Finding(path, True, "its settings are this version's")


def _json(path: str) -> Optional[Finding]:
    try:
        with open(path, encoding="utf-8") as file:
            json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        return Finding(path, False, f"it cannot be read as JSON: {error}")
    return Finding(path, True, "it is JSON")
