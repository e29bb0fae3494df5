"""The file that a record index is kept in: nothing of it is believed that does not fit the shards."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Optional, Sequence

import numpy as np

from densenet_keras import files
from densenet_keras.data import tfrecord
from densenet_keras.data.index_scan import COLUMNS, Bad, Index

_SPARE_BYTES = 1 << 20
_MOST_SAMPLED = 1024
_THREADS = 8


def store(path: str, identity: str, paths: Sequence[str], index: Index) -> bool:
    """Whether `index` could be written; a reader sees the old file or the new one, never half."""
    rows = {str(row): list(what) for row, what in index.bad.items()}
    try:
        texts = {"identity": identity, "bad": json.dumps({"rows": rows, "changed": _changed(paths, index)})}
    except OSError:
        return False
    members: Dict[str, Any] = {column: index.columns[column] for column in COLUMNS}
    members.update({name: np.frombuffer(text.encode("utf-8"), np.uint8) for name, text in texts.items()})
    try:
        with files.whole_file(path, "wb") as file:
            np.savez(file, **members)
    except OSError:
        return False
    return True


def load(path: str, identity: str, paths: Sequence[str]) -> Optional[Index]:
    """The index in file `path` if it is whole and one of these shards by their names, sizes and times.

    Memory stays within the size of the file, and that below the size of the shards.
    """
    try:
        sizes = [os.path.getsize(shard) for shard in paths]
        if os.path.getsize(path) > sum(sizes) + _SPARE_BYTES:
            return None
        with zipfile.ZipFile(path) as archive:
            if bytes(_member(archive, "identity", np.dtype(np.uint8))) != identity.encode("utf-8"):
                return None
            columns = {column: _member(archive, column, kind) for column, kind in COLUMNS.items()}
            bad = json.loads(bytes(_member(archive, "bad", np.dtype(np.uint8))).decode("utf-8"))
        rows = {int(row): Bad(str(r), str(m), int(n)) for row, (r, m, n) in bad["rows"].items()}
        index = Index(columns, rows)
        if bad["changed"] != _changed(paths, index):
            return None
    except Exception:  # whatever a damaged archive makes zipfile, struct or json raise: it is rebuilt
        return None
    return index if _is_consistent(index, np.array(sizes, np.int64)) else None


def _changed(paths: Sequence[str], index: Index) -> Dict[str, int]:
    """When shards with bad records were last touched: a whole copy may have their size and time."""
    touched = sorted({int(index.columns["shard"][row]) for row in index.bad})
    return {str(shard): os.stat(paths[shard]).st_ctime_ns for shard in touched}


def _member(archive: zipfile.ZipFile, name: str, kind: np.dtype) -> np.ndarray:
    """The array [n] of that kind in member `name`, whose checksum the archive compares."""
    info = archive.getinfo(name + ".npy")
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError("compressed")
    with archive.open(info) as file:
        data = file.read()
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("another version of the format")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    values = np.frombuffer(data, kind, offset=stream.tell())
    if dtype != kind or shape != values.shape:
        raise ValueError("another kind of array")
    return values


def _is_consistent(index: Index, sizes: np.ndarray) -> bool:
    """Whether every record lies within its shard, behind the one before, and its image within it."""
    columns = {name: values.astype(np.int64) for name, values in index.columns.items()}
    shard, offset, length = columns["shard"], columns["offset"], columns["length"]
    count = len(shard)
    if any(len(values) != count for values in columns.values()) or count == 0:
        return False
    if shard.min() < 0 or shard.max() >= len(sizes) or (np.diff(shard) < 0).any():
        return False
    ends = offset + length + tfrecord.FOOTER_BYTES
    follows = np.diff(shard) > 0
    is_bad = np.zeros(count, bool)
    rows = np.array(sorted(index.bad), np.int64)
    if len(rows) and (rows[0] < 0 or rows[-1] >= count):
        return False
    is_bad[rows] = True
    within = (offset >= tfrecord.HEADER_BYTES) & ((ends <= sizes[shard]) | is_bad)
    in_order = (offset[1:] >= offset[:-1] + length[:-1]) | follows
    pictured = (columns["image_bytes"] > 0) != is_bad
    held = columns["image_start"] + columns["image_bytes"] <= length
    return bool(within.all() and in_order.all() and pictured.all() and held.all())


def fits(paths: Sequence[str], index: Index) -> bool:
    """Whether the shards still hold, in a sample of all, the records that the index was built from.

    Compared are length and checksum of each record, which change with any byte of it. Which ones are
    looked at depends on the index alone, so that all ranks come to the same answer.
    """
    sampled = _sampled(index)
    shards = np.split(sampled, np.flatnonzero(np.diff(index.columns["shard"][sampled])) + 1)
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        return all(pool.map(lambda rows: _hold(paths, index.columns, rows), shards))


def _sampled(index: Index) -> np.ndarray:
    """Good rows: the first and the last of each shard, and others all over the split."""
    shard = index.columns["shard"]
    borders = np.flatnonzero(np.diff(shard))
    count = len(shard)
    spread = np.linspace(0, count - 1, min(count, _MOST_SAMPLED)).astype(np.int64)
    rows = np.unique(np.concatenate([spread, borders, borders + 1, [0, count - 1]]))
    return rows[index.columns["image_bytes"][rows] > 0]


def _hold(paths: Sequence[str], columns: Dict[str, np.ndarray], rows: np.ndarray) -> bool:
    """Whether these records of one shard are the ones that were indexed."""
    if not len(rows):
        return True
    try:
        descriptor = os.open(paths[int(columns["shard"][rows[0]])], os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True  # reading it says why it cannot be
    try:
        return all(_holds(descriptor, columns, int(row)) for row in rows)
    except OSError:
        return True
    finally:
        os.close(descriptor)


def _holds(descriptor: int, columns: Dict[str, np.ndarray], row: int) -> bool:
    """Whether length and checksum of a record are those that were indexed."""
    offset, length = int(columns["offset"][row]), int(columns["length"][row])
    header = os.pread(descriptor, tfrecord.HEADER_BYTES, offset - tfrecord.HEADER_BYTES)
    if header != tfrecord.header(length):
        return False
    footer = os.pread(descriptor, tfrecord.FOOTER_BYTES, offset + length)
    return footer == struct.pack("<I", int(columns["checksum"][row]))
