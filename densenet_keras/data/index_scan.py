"""Reads all shards of a split once, every checksum compared, and says where each record lies."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
from array import array
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from densenet_keras.data import framing, tfrecord
from densenet_keras.data.picture_header import JPEG_MAGIC, PNG_MAGIC
from densenet_keras.errors import UsageError

Progress = Callable[[int, int], None]

COLUMNS: Dict[str, Any] = {
    "shard": np.dtype(np.int32),
    "offset": np.dtype(np.uint64),
    "length": np.dtype(np.uint32),
    "label": np.dtype(np.int32),
    "image_start": np.dtype(np.uint32),
    "image_bytes": np.dtype(np.uint32),
    "checksum": np.dtype(np.uint32),
}
BAD_NAMED = 20
DAMAGED = "copy the file again, or write it anew"
UNUSABLE = "write the shard anew without it, or with what is missing (python -m densenet_keras prepare does)"

_READ_AHEAD_BYTES = 1 << 20
_REPORT_BYTES = 8 << 20
_LEAST_OF_SMALLEST = 8  # how many records may lie where the smallest bad one found would
_THREADS = 8  # network storage needs several reads at once
_PNG_HEADER_BYTES = 33  # of one cut off in it TensorFlow's decoder takes the process down


class Bad(NamedTuple):
    """Why a row of the index is no record that can be used.

    Attributes:
        records: how many it stands for: where the framing is broken, as many as its bytes would hold.
    """

    reason: str
    remedy: str
    records: int = 1


class Index(NamedTuple):
    """A row for each record, bad ones included: image_bytes is 0 there."""

    columns: Dict[str, np.ndarray]  # COLUMNS, [records]
    bad: Dict[int, Bad]


def build(paths: Sequence[str], progress: Optional[Progress] = None, allowed_share: float = 0.0) -> Index:
    """Reads and checks all shards.

    Args:
        progress: called now and then with (bytes read, bytes in all), from any thread, never from
            two at once.
        allowed_share: reading ends early where certainly more than this share is bad.

    Raises:
        UsageError: a shard that cannot be read, is cut off or is not of records; or naming file, record
            and byte of what is bad, up to twenty, if reading ended early.
    """
    meter = _Meter(paths, progress, allowed_share)
    with ThreadPoolExecutor(max_workers=min(_THREADS, len(paths))) as pool:
        futures = [pool.submit(_scan, shard, path, meter) for shard, path in enumerate(paths)]
        try:
            scanned = [future.result() for future in futures]
        finally:
            meter.stop.set()
    meter.refuse()
    firsts = np.cumsum([0] + [len(shard.columns["length"]) for shard in scanned])
    bad = {
        int(first) + row: what
        for first, shard in zip(firsts, scanned)
        for row, what in _counted(shard).items()
    }
    columns = {
        column: np.concatenate([np.frombuffer(shard.columns[column], kind) for shard in scanned])
        for column, kind in COLUMNS.items()
    }
    return Index(columns, bad)


class _Scanned(NamedTuple):
    """What one shard holds; `sizes` are the bytes of its bad rows."""

    columns: Dict[str, Any]
    bad: Dict[int, Bad]
    sizes: Dict[int, int]


def _counted(shard: _Scanned) -> Dict[int, Bad]:
    """The bad rows, each with the number of records that it stands for."""
    good = len(shard.columns["length"]) - len(shard.bad)
    mean_bytes = sum(shard.columns["length"]) / good if good else 0
    return {
        row: what._replace(records=max(1, round(shard.sizes[row] / mean_bytes))) if mean_bytes else what
        for row, what in shard.bad.items()
    }


class Waiting(io.FileIO):
    """A file that gives up a turn while it waits for the storage.

    One thread at a time works on what was read, and the others read meanwhile. All at once, they would
    wait for Python's lock after every checksum: with eight, twice the time of one.
    """

    def __init__(self, path: str, turn: threading.Lock) -> None:
        super().__init__(path, "rb")
        self._turn = turn
        if hasattr(os, "posix_fadvise"):  # not on macOS; the system then reads twice as far ahead
            with contextlib.suppress(OSError):  # a hint that what is not a plain file does not take
                os.posix_fadvise(self.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def readinto(self, buffer: Any) -> Any:
        self._turn.release()
        try:
            return super().readinto(buffer)
        finally:
            self._turn.acquire()


class _Meter:
    """Adds up what the scanning threads have read and found to be bad, and tells them to stop.

    Attributes:
        turn: of the thread that works on what it has read.
    """

    def __init__(self, paths: Sequence[str], progress: Optional[Progress], allowed_share: float) -> None:
        self.stop = threading.Event()
        self.turn = threading.Lock()
        self._paths = paths
        self._lock = threading.Lock()
        self._done_bytes = 0
        self._total_bytes = sum(os.path.getsize(path) for path in paths)
        self._progress = progress
        self._allowed_share = allowed_share
        self._bad: List[Tuple[int, int, int, Bad]] = []  # shard, row, byte, what
        self._fatal = False
        self._smallest = self._total_bytes

    def note(self, shard: int, row: int, stretch: framing.Stretch, bad: Bad) -> None:
        """Keeps what is bad to be named; when it is too much by any count, nobody needs to read on."""
        with self._lock:
            self._bad.append((shard, row, stretch.start, bad))
            self._smallest = min(self._smallest, stretch.end - stretch.start)
            most_records = _LEAST_OF_SMALLEST * self._total_bytes / self._smallest
            if len(self._bad) >= BAD_NAMED + self._allowed_share * most_records:
                self._fatal = True
                self.stop.set()

    def note_end(self, shard: int, row: int, byte: int, reason: str) -> None:
        """Keeps why a shard cannot be read to its end."""
        with self._lock:
            self._bad.append((shard, row, byte, Bad(reason, DAMAGED)))
            self._fatal = True

    def refuse(self) -> None:
        """Raises UsageError if reading ended early, or what was found cannot be passed over."""
        if self._fatal:
            named = sorted(self._bad)[:BAD_NAMED]
            raise UsageError(listing([
                (f"{self._paths[shard]}: record {row} at byte {byte}: {bad.reason}", bad.remedy)
                for shard, row, byte, bad in named
            ]))  # fmt: skip

    def add(self, byte_count: int) -> None:
        with self._lock:
            self._done_bytes += byte_count
            if self._progress is not None:
                self._progress(self._done_bytes, self._total_bytes)


def listing(named: Sequence[Tuple[str, str]]) -> str:
    """What up to BAD_NAMED bad records are and what to do, (what, remedy) of each."""
    if len(named) == 1:
        return "; ".join(named[0])
    first = "the first " if len(named) == BAD_NAMED else ""
    lines = [f"  {what}" for what, _ in named]
    return "\n".join(
        [f"{first}{len(named)} records cannot be used:", *lines, *sorted({remedy for _, remedy in named})]
    )


def _scan(shard: int, path: str, meter: _Meter) -> _Scanned:
    scanned = _Scanned({column: array(kind.char) for column, kind in COLUMNS.items()}, {}, {})
    end = reported = row = 0
    try:
        file_bytes = os.path.getsize(path)
        if file_bytes == 0:
            raise UsageError(
                f"{path} is empty (0 bytes), but a shard holds at least one record; "
                "copy it again, or write the set with fewer shards"
            )
        with meter.turn, Waiting(path, meter.turn) as raw, io.BufferedReader(raw, _READ_AHEAD_BYTES) as file:
            for row, stretch in enumerate(framing.stretches(file, file_bytes)):
                if meter.stop.is_set():
                    break
                bad = _append(scanned.columns, shard, stretch)
                if bad is not None:
                    scanned.bad[row], scanned.sizes[row] = bad, stretch.end - stretch.start
                    meter.note(shard, row, stretch, bad)
                row, end = row + 1, stretch.end
                if end - reported >= _REPORT_BYTES:
                    meter.add(end - reported)
                    reported = end
    except tfrecord.FormatError as error:
        meter.note_end(shard, row, end, str(error))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; check permissions and disk") from error
    meter.add(end - reported)
    return scanned


def _append(columns: Dict[str, Any], shard: int, stretch: framing.Stretch) -> Optional[Bad]:
    """Adds a row for `stretch`; says what is wrong with it."""
    offset = stretch.start + tfrecord.HEADER_BYTES
    bad = Bad(stretch.damage, DAMAGED) if stretch.payload is None else None
    row = (shard, offset, 0, 0, 0, 0, 0)
    if stretch.payload is not None:
        try:
            example = _usable(stretch.payload)
            image = (example.label, example.image_start, example.image_bytes)
            row = (shard, offset, len(stretch.payload), *image, stretch.checksum)
        except tfrecord.FormatError as error:
            bad = Bad(str(error), UNUSABLE)
    for values, value in zip(columns.values(), row):
        values.append(value)
    return bad


def _usable(payload: bytes) -> tfrecord.ImageExample:
    example = tfrecord.parse_example(payload)
    if not -(1 << 31) <= example.label < 1 << 31:
        raise tfrecord.UnusableExample(f"label {example.label} is not a 32-bit integer")
    start = example.image_start
    if not payload.startswith((JPEG_MAGIC, PNG_MAGIC), start):
        begun = payload[start : start + 8]
        raise tfrecord.UnusableExample(f"image/encoded is neither JPEG nor PNG; it starts with {begun!r}")
    if payload.startswith(PNG_MAGIC, start) and example.image_bytes < _PNG_HEADER_BYTES:
        raise tfrecord.UnusableExample(f"image/encoded is a PNG cut off after {example.image_bytes} bytes")
    return example


def checksums(paths: Sequence[str], columns: Dict[str, np.ndarray]) -> np.ndarray:
    """The checksum of each payload, as stored: the column that a scan would fill."""
    found = np.zeros(len(columns["shard"]), COLUMNS["checksum"])
    for shard, path in enumerate(paths):
        with open(path, "rb", buffering=0) as file:
            for row in np.flatnonzero(columns["shard"] == shard):
                end = int(columns["offset"][row]) + int(columns["length"][row])
                found[row] = struct.unpack("<I", os.pread(file.fileno(), tfrecord.FOOTER_BYTES, end))[0]
    return found
