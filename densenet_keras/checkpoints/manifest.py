"""The manifest of a checkpoint: what it is and what its files must be. No TensorFlow.

`model.ckpt-STEP.manifest.json` makes a checkpoint complete in itself: copied elsewhere, it still says which
network it is of. Checkpoints of tf.train.Saver and of earlier versions have none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from typing import Any, Dict, Mapping, Optional, Sequence

import densenet_keras
from densenet_keras.errors import UsageError

ENDING = ".manifest.json"
FORMAT = 1
_CHECKSUM = "sha256 of the rest"  # so that a changed byte in the manifest itself is noticed
_BLOCK_BYTES = 1 << 20
_LARGEST_BYTES = 16 << 20  # with a thousand long names of classes it has 0.1 MB

_log = logging.getLogger(__name__)

Manifest = Dict[str, Any]


class BrokenManifest(UsageError):
    """A manifest whose bytes are wrong."""


def write(prefix: str, endings: Sequence[str], about: Mapping[str, Any]) -> None:
    """Writes the manifest of the checkpoint whose files stand at `prefix`; the caller syncs and publishes it.

    Args:
        endings: of its files.
        about: what is known of it, as plain objects: `checkpoint` (its name once it is published), `step`,
            `epoch`, `data`, `configuration`, `plan`, `class_names`, `versions` beside those added here.
    """
    import numpy as np  # every command waits for what this module imports, and reading needs none of it

    content = {
        "format": FORMAT,
        **about,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "files": {
            ending: {"bytes": os.path.getsize(prefix + ending), "sha256": _sha256(prefix + ending)}
            for ending in endings
        },
        "versions": {
            "densenet_keras": densenet_keras.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            **about.get("versions", {}),
        },
    }
    with open(prefix + ENDING, "w", encoding="utf-8") as file:
        json.dump({**content, _CHECKSUM: _of_content(content)}, file, indent=2)
        file.write("\n")


def read(prefix: str) -> Optional[Manifest]:
    """The manifest of checkpoint `prefix`; None if it has none.

    Raises:
        BrokenManifest: its bytes are wrong.
        OSError: it cannot be read, which says nothing about it.
    """
    path = prefix + ENDING
    try:
        if os.path.getsize(path) > _LARGEST_BYTES:
            raise BrokenManifest(f"{path} has {os.path.getsize(path)} bytes, more than a manifest can have")
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise BrokenManifest(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.pop(_CHECKSUM, None) != _of_content(content):
        raise BrokenManifest(f"{path} is damaged, or was edited: its checksum is not that of what it says")
    if content.get("format") != FORMAT:
        raise BrokenManifest(f"{path} is of another version of this program")
    if not _says_what_is_read(content):
        raise BrokenManifest(
            f"{path} lacks step or files, or holds them in another form; somebody wrote it anew"
        )
    return content


def _says_what_is_read(content: Mapping[str, Any]) -> bool:
    """Whether a manifest has the form that `write` gives it: its checksum does not tell who wrote it."""
    described, names = content.get("files"), content.get("class_names")
    position = content.get("data", {})
    return (
        type(content.get("step")) is int
        and isinstance(position, dict)
        and all(type(value) is int and value >= 0 for value in position.values())
        and (names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names)))
        and isinstance(described, dict)
        and all(
            ending.startswith(".")
            and os.sep not in ending
            and "\0" not in ending
            and isinstance(each, dict)
            and type(each.get("bytes")) is int
            and isinstance(each.get("sha256"), str)
            for ending, each in described.items()
        )
    )


def readable(prefix: str) -> Optional[Manifest]:
    """As `read`; a broken one counts as none, with a warning."""
    try:
        return read(prefix)
    except BrokenManifest as error:
        _log.warning("%s; the checkpoint counts as one without", error)
        return None


def difference(prefix: str, manifest: Manifest, contents: bool) -> Optional[str]:
    """What of the files of checkpoint `prefix` is not as its manifest says; None if all is.

    Args:
        contents: whether every byte is compared, or sizes alone.

    Raises:
        OSError: a file cannot be read.
    """
    for ending, expected in manifest["files"].items():
        name = os.path.basename(prefix) + ending
        found = os.path.getsize(prefix + ending)
        if found != expected["bytes"]:
            return f"{name} has {found} bytes, {expected['bytes']} when it was saved"
        if contents and _sha256(prefix + ending) != expected["sha256"]:
            return f"{name} holds other bytes than when it was saved: its checksum has changed"
    return None


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(_BLOCK_BYTES), b""):
            digest.update(block)
    return digest.hexdigest()


def _of_content(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()
