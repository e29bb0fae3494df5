"""The index of a split: where each record lies, its image and its label; built once and cached.

Building reads every byte, because a checksum that nobody compares protects nothing and because a
bad record is cheaper to meet here than in the third week of training. One process builds, others that
need the same index wait for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import time
from typing import Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

import numpy as np

from densenet_keras.data import index_file
from densenet_keras.data.index_scan import COLUMNS, Index, Progress, build, checksums
from densenet_keras.errors import UsageError

__all__ = ["COLUMNS", "FOLDER", "Index", "Places", "Progress", "build", "load_or_build", "places", "store"]

FORMAT_VERSION = 2
FOLDER = ".densenet_index"
_POLL_SECONDS = 0.2
_SAID_SECONDS = 2.0


def _say(what: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"note: {what}\n")


class Places(NamedTuple):
    """Where the index of one split may be kept, the best place first, and what it is called in messages."""

    name: str
    paths: List[str]


def places(data_dir: str, name: str, environ: Mapping[str, str], run_folder: str = "") -> Places:
    """`data_dir`/.densenet_index; where that cannot be written the user's cache folder and the run's.

    Args:
        run_folder: which all ranks see, if they share anything; empty without one.
    """
    user_cache = environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = hashlib.sha256(os.path.realpath(data_dir).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    paths = [
        os.path.join(data_dir, FOLDER, f"{name}.npz"),
        os.path.join(user_cache, "densenet_keras", f"{folder}-{name}.npz"),
    ]
    if run_folder:
        paths.append(os.path.join(run_folder, FOLDER, f"{name}.npz"))
    return Places(name, paths)


def load_or_build(
    kept: Places, paths: Sequence[str], progress: Optional[Progress] = None, allowed_share: float = 0.0
) -> Index:
    """The index of these shards, from the cache where it still fits the files.

    A missing, damaged or outdated one is built anew. Names, sizes and times of the shards must be the
    same, and of a sample of the records length and checksum.

    Args:
        allowed_share: see `build`.

    Raises:
        UsageError: see `build`.
    """
    identity = _identity(kept.name, paths)
    index = _load(kept, identity, paths)
    if index is not None:
        return index
    with _building(kept):
        index = _load(
            kept, identity, paths, say=lambda _: None
        )  # another process may have built it meanwhile
        if index is None:
            index = build(paths, progress, allowed_share)
            _keep(kept, identity, paths, index)
    return index


def store(data_dir: str, name: str, paths: Sequence[str], columns: Dict[str, np.ndarray]) -> None:
    """Caches in `data_dir` the index of shards without a bad record, as building would give it.

    Args:
        columns: COLUMNS, the checksums left out: they are read.
    """
    whole = {**columns, "checksum": checksums(paths, columns)}
    kept = places(data_dir, name, {})
    index_file.store(kept.paths[0], _identity(name, paths), paths, Index(whole, {}))


def _identity(name: str, paths: Sequence[str]) -> str:
    """What the index was built from, as text; equal text means the index still fits."""
    shards = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
        shards.append([os.path.basename(path), status.st_size, status.st_mtime_ns])
    return json.dumps({"version": FORMAT_VERSION, "split": name, "shards": shards})


def _load(
    kept: Places, identity: str, paths: Sequence[str], say: Callable[[str], None] = _say
) -> Optional[Index]:
    for path in kept.paths:
        index = index_file.load(path, identity, paths)
        if index is None:
            continue
        if index_file.fits(paths, index):
            return index
        say(f"the index {path} is not that of the shards any more, though their sizes and times are the "
            "same: they are read again")  # fmt: skip
    return None


def _keep(kept: Places, identity: str, paths: Sequence[str], index: Index) -> None:
    """Stores the index beside the data, or else wherever this user and this run may find it again."""
    first, *others = kept.paths
    if index_file.store(first, identity, paths, index):
        return
    stored = [index_file.store(path, identity, paths, index) for path in others]  # in every one
    if not any(stored):
        where = " nor ".join(os.path.dirname(path) for path in kept.paths)
        _say(f"the index of the {kept.name} records can be kept neither in {where}: every process reads all "
             "shards again")  # fmt: skip


@contextlib.contextmanager
def _building(kept: Places) -> Iterator[None]:
    """Lets in one process at a time.

    Where nothing can be written, or the file system knows no locks, nobody waits.
    """
    descriptor = _lock_file(kept)
    if descriptor is None:
        yield
        return
    try:
        _wait(descriptor, kept.name)
        yield
    finally:
        os.close(descriptor)


def _lock_file(kept: Places) -> Optional[int]:
    # The last place before the second: where the data cannot be written, hosts share the run's folder alone.
    first, *others = kept.paths
    for path in (first, *reversed(others)):
        folder, name = os.path.split(path)
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)
            return os.open(
                os.path.join(folder, f".{name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
            )
    return None


def _wait(descriptor: int, name: str) -> None:
    """Takes the lock, when no other process has it."""
    says_at = time.monotonic() + _SAID_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        except OSError:
            return
        if time.monotonic() > says_at:
            says_at = float("inf")
            _say(f"another process indexes the {name} records; waiting for it")
        time.sleep(_POLL_SECONDS)
