"""Reads batches of encoded images by record number: few descriptors, every checksum compared."""

from __future__ import annotations

import os
import resource
import threading
from collections import OrderedDict
from typing import Callable, List, Optional, Tuple

import numpy as np

from densenet_keras.data import tfrecord
from densenet_keras.data.order import NO_RECORD
from densenet_keras.data.records import BadRecord, Split

_SHARE = 4  # a quarter of the files that the process may open: TensorFlow, sockets and logs need theirs
_MOST_OPEN_FILES = 256  # ImageNet has 1,024 shards, and 1,024 is the usual limit
_NONE = np.zeros(0, np.int64)

# Given the row of the batch, the record and what is wrong with it: another record, or NO_RECORD.
Instead = Callable[[int, int, BadRecord], int]


def files_to_keep_open() -> int:
    """How many shards one reader keeps open, by the limit of this process (ulimit -n)."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed == resource.RLIM_INFINITY:
        return _MOST_OPEN_FILES
    return max(1, min(_MOST_OPEN_FILES, allowed // _SHARE))


class RecordReader:
    """Random access to the images of a split.

    Safe to call from several threads; calls take turns.
    """

    def __init__(self, split: Split, max_open_files: Optional[int] = None) -> None:
        self.split = split
        self._max_open_files = max_open_files or files_to_keep_open()
        self._descriptors: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    def images(
        self, records: np.ndarray, expected_next: np.ndarray = _NONE, instead: Optional[Instead] = None
    ) -> np.ndarray:
        """The encoded images of these records, [n] objects of type bytes; b"" for NO_RECORD.

        Args:
            expected_next: records that will probably be read next; the system is asked to fetch them
                from the disk meanwhile, which doubles random reading from a cold one.
            instead: which record to take in the place of a bad one; `records` says then which it was.

        Raises:
            BadRecord: naming the file and record that cannot be read or, without `instead`, is bad.
        """
        images = np.empty(len(records), object)
        with self._lock:
            self._fetch_ahead(expected_next)
            for row in range(len(records)):
                while True:
                    record = int(records[row])
                    try:
                        images[row] = self._image(record) if record != NO_RECORD else b""
                        break
                    except BadRecord as error:
                        if instead is None or not error.is_damage:
                            raise
                        records[row] = instead(row, record, error)
        return images

    def payloads(self, records: np.ndarray) -> List[bytes]:
        """The whole serialised Examples of these records.

        Raises:
            BadRecord: naming the file and record that cannot be read or has changed.
        """
        with self._lock:
            return [self._payload(int(record)) for record in records]

    def close(self) -> None:
        """Closes all files; the reader stays usable and opens them again."""
        with self._lock:
            while self._descriptors:
                os.close(self._descriptors.popitem()[1])

    def __del__(self) -> None:
        self.close()

    def _image(self, record: int) -> bytes:
        return self._read(record, int(self.split.image_start[record]), int(self.split.image_bytes[record]))

    def _payload(self, record: int) -> bytes:
        return self._read(record, 0, int(self.split.length[record]))

    def _read(self, record: int, start: int, byte_count: int) -> bytes:
        """A part of the payload, all of which is checked. No byte of it is copied after it was read."""
        bad = self.split.bad.get(record)
        if bad is not None:
            raise BadRecord(self.split.describe(record), bad.reason, bad.remedy)
        rest = int(self.split.length[record]) - start - byte_count
        try:
            descriptor, offset, _ = self._place(record)
            before = os.pread(descriptor, tfrecord.HEADER_BYTES + start, offset)
            offset += tfrecord.HEADER_BYTES + start
            wanted = os.pread(descriptor, byte_count, offset)
            after = os.pread(descriptor, rest + tfrecord.FOOTER_BYTES, offset + byte_count)
        except OSError as error:
            where = self.split.describe(record)
            raise BadRecord(where, f"cannot be read: {error.strerror}", is_damage=False) from error
        header, payload = before[: tfrecord.HEADER_BYTES], before[tfrecord.HEADER_BYTES :]
        self.split.verify(record, header, [payload, wanted, after[:rest]], after[rest:])
        return wanted

    def _fetch_ahead(self, records: np.ndarray) -> None:
        if not hasattr(os, "posix_fadvise"):
            return
        for record in records:
            try:
                descriptor, offset, byte_count = self._place(record)
                os.posix_fadvise(descriptor, offset, byte_count, os.POSIX_FADV_WILLNEED)
            except OSError:  # no more than a hint; the read itself will say what is wrong
                return

    def _place(self, record: int) -> Tuple[int, int, int]:
        """Open file, first byte and number of bytes of a record with its framing."""
        split = self.split
        byte_count = tfrecord.HEADER_BYTES + int(split.length[record]) + tfrecord.FOOTER_BYTES
        start = int(split.offset[record]) - tfrecord.HEADER_BYTES
        return self._descriptor(int(split.shard[record])), start, byte_count

    def _descriptor(self, shard: int) -> int:
        descriptor = self._descriptors.pop(shard, None)
        if descriptor is None:
            if len(self._descriptors) >= self._max_open_files:
                os.close(self._descriptors.popitem(last=False)[1])
            descriptor = os.open(self.split.paths[shard], os.O_RDONLY | os.O_CLOEXEC)
        self._descriptors[shard] = descriptor
        return descriptor
