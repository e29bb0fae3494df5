"""The bad records of a split: each listed once in the run's folder, and no more than the run permits.

All ranks add to one file, and each counts what stands there, so that the limit is one of the whole run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import threading
import time
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

from densenet_keras.data.records import BadRecord, Policy, Split

FILE = "bad_records.jsonl"


class BadRecords:
    """What a rank knows of the bad records of one split; safe to call from several threads."""

    def __init__(self, split: Split, policy: Policy) -> None:
        self._split, self._policy = split, policy
        self._path = os.path.join(policy.folder, FILE) if policy.folder else ""
        self._lock = threading.Lock()
        self._met: Set[int] = set()
        self._refusal: Optional[BadRecord] = None
        self._warned = False

    def count(self) -> int:
        """How many records this rank knows to be bad."""
        with self._lock:
            return len(self._met | self._split.bad.keys())

    def knows(self, record: int) -> bool:
        """Whether this rank knows that the record is bad."""
        with self._lock:
            return record in self._met or record in self._split.bad

    def list_indexed(self) -> None:
        """Lists those that the index knows; one rank's part."""
        for record, bad in sorted(self._split.bad.items()):
            if not self._listed(record, bad.reason, bad.records):
                return

    def add(self, record: int, error: BadRecord) -> None:
        """Takes note of a bad record that was met.

        Raises:
            BadRecord: it is one too many; so is then every other one.
        """
        with self._lock:
            if self._refusal is None and record not in self._met:
                self._met.add(record)
                if record not in self._split.bad:  # these were counted before the run began
                    self._listed(record, error.reason, 1)
                    self._refusal = self._refused(error)
            if self._refusal is not None:
                raise self._refusal

    def check(self) -> None:
        """Raises the BadRecord of the first that was one too many, if there was one."""
        with self._lock:
            if self._refusal is not None:
                raise self._refusal

    def _refused(self, error: BadRecord) -> Optional[BadRecord]:
        """`error` with what is permitted, if that is passed."""
        known = {self._key(record): bad.records for record, bad in self._split.bad.items()}
        known.update({self._key(record): 1 for record in self._met if record not in self._split.bad})
        for entry in entries(self._path):
            with contextlib.suppress(KeyError, TypeError, ValueError, OSError):
                if entry["split"] == self._split.name and self._is_current(entry):
                    known.setdefault((os.path.basename(entry["file"]), entry["byte"]), int(entry["records"]))
        count = sum(known.values())
        if count <= self._policy.permitted(len(self._split)):
            return None
        remedy = self._policy.remedy(count, self._split)
        listed = f"; all are listed in {self._path}" if self._path and count > 1 else ""
        if count > 1:
            return BadRecord(str(error), f"{count} bad records are too many" + listed, remedy)
        return BadRecord(str(error), remedy) if remedy else error

    def _key(self, record: int) -> Tuple[str, int]:
        path, _, byte = self._split.place(record)
        return os.path.basename(path), byte

    def _is_current(self, entry: Dict[str, Any]) -> bool:
        """Whether the file is still the one that the entry was written of."""
        folder = os.path.dirname(self._split.paths[0])
        status = os.stat(os.path.join(folder, os.path.basename(entry["file"])))
        return status.st_ctime_ns == entry["file_changed_ns"]

    def _listed(self, record: int, reason: str, records: int) -> bool:
        """Adds a line to the file, unless one of that record is there; False if it cannot be written."""
        if not self._path:
            return True
        path, number, byte = self._split.place(record)
        try:
            changed = os.stat(path).st_ctime_ns
            entry = {
                "time": time.strftime("%Y-%m-%d %H:%M:%S"), "split": self._split.name, "file": path,
                "record": number, "byte": byte, "reason": reason, "records": records,
                "file_changed_ns": changed,
            }  # fmt: skip
            with _appending(self._path) as file:
                for other in entries(self._path):
                    if [other.get(name) for name in _SAME] == [entry[name] for name in _SAME]:
                        return True
                file.write(json.dumps(entry).encode() + b"\n")
        except OSError as error:
            if not self._warned:
                self._warned = True
                with contextlib.suppress(OSError, ValueError):
                    sys.stderr.write(
                        f"warning: {self._path} cannot be written ({error.strerror}): {reason}\n"
                    )
            return False
        return True


_SAME = ("split", "file", "byte", "file_changed_ns")


@contextlib.contextmanager
def _appending(path: str) -> Iterator[Any]:
    """The file to append to, closed to other ranks meanwhile where the file system knows locks."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "ab", buffering=0) as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield file


def entries(path: str, start_byte: int = 0, byte_count: int = -1) -> List[Dict[str, Any]]:
    """The lines of a list of bad records in a stretch of the file; those that are none are passed over."""
    found: List[Dict[str, Any]] = []
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(start_byte)
        for line in file.read(byte_count).splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                entry = json.loads(line.decode("utf-8"))
                if isinstance(entry, dict):
                    found.append(entry)
    return found


class News:
    """What has come to the list of bad records since the last look, by any rank."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, FILE)
        self._seen_bytes = self._size()

    def _size(self) -> int:
        try:
            return os.path.getsize(self._path)
        except OSError:
            return 0

    def lines(self) -> List[str]:
        """A line for the log for each."""
        size = self._size()
        if size == self._seen_bytes:
            return []
        start, self._seen_bytes = min(self._seen_bytes, size), size
        return [
            f"bad record: {entry.get('file')}: record {entry.get('record')} at byte {entry.get('byte')}: "
            f"{entry.get('reason')}"
            for entry in entries(self._path, start, size - start)
        ]
