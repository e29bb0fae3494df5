"""The index of a split: where each record lies, its image and its label; built once and cached.

Building reads every byte, because a checksum that nobody compares protects nothing and because a
bad record is cheaper to meet here than in the third week of training.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from array import array
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from densenet_keras import files
from densenet_keras.data import tfrecord
from densenet_keras.errors import UsageError

Progress = Callable[[int, int], None]

FORMAT_VERSION = 1
FOLDER = ".densenet_index"
COLUMNS: Dict[str, Any] = {
    "shard": np.dtype(np.int32),
    "offset": np.dtype(np.uint64),
    "length": np.dtype(np.uint32),
    "label": np.dtype(np.int32),
    "image_start": np.dtype(np.uint32),
    "image_bytes": np.dtype(np.uint32),
}

_READ_AHEAD_BYTES = 1 << 20
_REPORT_BYTES = 8 << 20
_THREADS = 8  # reads and checksums run outside Python's lock; network storage needs several at once
_BAD_NAMED = 20
_DAMAGED = "copy the file again, or write it anew"
_UNUSABLE = "write the shard anew without it, or with what is missing (python -m densenet_keras prepare does)"
_IMAGE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # what `preprocessing` decodes: JPEG, PNG


def load_or_build(
    data_dir: str,
    name: str,
    paths: Sequence[str],
    progress: Optional[Progress],
    environ: Mapping[str, str],
) -> Dict[str, np.ndarray]:
    """The columns of the index of these shards, from the cache where it still fits the files.

    The cache lies in `data_dir`/.densenet_index, or in the user's cache folder where that cannot be
    written. A missing, damaged or outdated one is replaced without a word.

    Raises:
        UsageError: a shard that cannot be read, or a damaged record.
    """
    identity = _identity(name, paths)
    candidates = _cache_paths(data_dir, name, environ)
    for path in candidates:
        columns = _load(path, identity)
        if columns is not None:
            return columns
    columns = build(paths, progress)
    for path in candidates:
        if _store(path, identity, columns):
            break
    return columns


def store(data_dir: str, name: str, paths: Sequence[str], columns: Dict[str, np.ndarray]) -> None:
    """Caches in `data_dir` the columns that building the index of these shards would give."""
    _store(_cache_paths(data_dir, name, {})[0], _identity(name, paths), columns)


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


def _cache_paths(data_dir: str, name: str, environ: Mapping[str, str]) -> List[str]:
    user_cache = environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = hashlib.sha256(os.path.realpath(data_dir).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return [
        os.path.join(data_dir, FOLDER, f"{name}.npz"),
        os.path.join(user_cache, "densenet_keras", f"{folder}-{name}.npz"),
    ]


def _load(path: str, identity: str) -> Optional[Dict[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            if stored["identity"].tobytes().decode("utf-8") != identity:
                return None
            columns = {column: stored[column] for column in COLUMNS}
    except Exception:  # whatever a damaged archive makes zipfile, zlib or numpy raise: it is rebuilt
        return None
    sizes = {len(values) for values in columns.values()}
    kinds = [(columns[column].dtype, columns[column].ndim) for column in COLUMNS]
    if len(sizes) != 1 or kinds != [(kind, 1) for kind in COLUMNS.values()]:
        return None
    return columns


def _store(path: str, identity: str, columns: Dict[str, np.ndarray]) -> bool:
    """Whether the cache could be written; a reader sees the old file or the new one, never half."""
    try:
        with files.whole_file(path, "wb") as file:
            members: Dict[str, Any] = dict(columns)
            members["identity"] = np.frombuffer(identity.encode("utf-8"), np.uint8)
            np.savez(file, **members)
    except OSError:
        return False
    return True


def build(paths: Sequence[str], progress: Optional[Progress] = None) -> Dict[str, np.ndarray]:
    """Reads and checks all shards.

    Args:
        progress: called now and then with (bytes read, bytes in all), from any thread, never from
            two at once.

    Raises:
        UsageError: naming file, record and byte of what is damaged or cannot be used, up to twenty.
    """
    meter = _Meter(sum(os.path.getsize(path) for path in paths), progress)
    with ThreadPoolExecutor(max_workers=min(_THREADS, len(paths))) as pool:
        futures = [pool.submit(_scan, shard, path, meter) for shard, path in enumerate(paths)]
        try:
            scanned = [future.result() for future in futures]
        finally:
            meter.stop.set()
    meter.refuse_bad()
    return {
        column: np.concatenate([np.frombuffer(shard[column], kind) for shard in scanned])
        for column, kind in COLUMNS.items()
    }


class _Meter:
    """Adds up what the scanning threads have read and found to be bad, and tells them to stop."""

    def __init__(self, total_bytes: int, progress: Optional[Progress]) -> None:
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._done_bytes = 0
        self._total_bytes = total_bytes
        self._progress = progress
        self._bad: List[Tuple[int, int, str, str]] = []  # shard, byte, what, remedy

    def note(self, shard: int, byte: int, what: str, remedy: str) -> None:
        """Keeps a bad record to be named; when there are twenty, nobody needs to read on."""
        with self._lock:
            self._bad.append((shard, byte, what, remedy))
            if len(self._bad) >= _BAD_NAMED:
                self.stop.set()

    def refuse_bad(self) -> None:
        """Raises UsageError if a bad record was found."""
        named = sorted(self._bad)[:_BAD_NAMED]
        if len(named) == 1:
            raise UsageError("; ".join(named[0][2:]))
        if named:
            first = "the first " if len(named) == _BAD_NAMED else ""
            lines = [f"  {what}" for _, _, what, _ in named]
            remedies = sorted({remedy for _, _, _, remedy in named})
            raise UsageError("\n".join([f"{first}{len(named)} records cannot be used:", *lines, *remedies]))

    def add(self, byte_count: int) -> None:
        with self._lock:
            self._done_bytes += byte_count
            if self._progress is not None:
                self._progress(self._done_bytes, self._total_bytes)


def _scan(shard: int, path: str, meter: _Meter) -> Dict[str, Any]:
    columns: Dict[str, Any] = {column: array(kind.char) for column, kind in COLUMNS.items()}
    end = reported = number = 0
    try:
        file_bytes = os.path.getsize(path)
        if file_bytes == 0:
            raise UsageError(
                f"{path} is empty (0 bytes), but a shard holds at least one record; "
                "copy it again, or write the set with fewer shards"
            )
        with open(path, "rb", buffering=_READ_AHEAD_BYTES) as file:
            for offset, payload in tfrecord.scan(file, file_bytes):
                if meter.stop.is_set():
                    break
                try:
                    _append(columns, shard, offset, payload)
                except tfrecord.UnusableExample as error:
                    meter.note(shard, end, f"{path}: record {number} at byte {end}: {error}", _UNUSABLE)
                number += 1
                end = offset + len(payload) + tfrecord.FOOTER_BYTES
                if end - reported >= _REPORT_BYTES:
                    meter.add(end - reported)
                    reported = end
    except tfrecord.FormatError as error:
        meter.note(shard, end, f"{path}: record {number} at byte {end}: {error}", _DAMAGED)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; check permissions and disk") from error
    meter.add(end - reported)
    return columns


def _append(columns: Dict[str, Any], shard: int, offset: int, payload: bytes) -> None:
    example = tfrecord.parse_example(payload)
    if not -(1 << 31) <= example.label < 1 << 31:
        raise tfrecord.UnusableExample(f"label {example.label} is not a 32-bit integer")
    if not payload.startswith(_IMAGE_MAGIC, example.image_start):
        start = payload[example.image_start : example.image_start + 8]
        raise tfrecord.UnusableExample(f"image/encoded is neither JPEG nor PNG; it starts with {start!r}")
    row = (shard, offset, len(payload), example.label, example.image_start, example.image_bytes)
    for values, value in zip(columns.values(), row):
        values.append(value)
