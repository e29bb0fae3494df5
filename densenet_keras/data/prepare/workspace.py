"""Unfinished work in the folder of the data set to be: whole shards, and what is known of each.

Everything lies in `.preparing` until all shards are whole. A shard counts as whole once its account
stands beside it; whatever else lies there is what a killed process left, and is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

import numpy as np

from densenet_keras import files
from densenet_keras.data.prepare.plan import Plan
from densenet_keras.errors import UsageError

FOLDER = ".preparing"
_PLAN, _LOCK = "plan.json", "lock"
_ACCOUNT = ".account.npz"
_DONE = "-done"  # behind the folder's name when it is only to be removed

# What is kept of each record: the columns of the record index, and what the report needs.
RECORD_COLUMNS: Dict[str, Any] = {
    "row": np.int64,  # of the listing
    "offset": np.uint64,
    "length": np.uint32,
    "label": np.int32,
    "image_start": np.uint32,
    "image_bytes": np.uint32,
    "changes": np.uint8,  # see shards.CHANGES
}


class Account(NamedTuple):
    """What is known of a whole shard."""

    columns: Dict[str, np.ndarray]  # RECORD_COLUMNS, [records]
    digests: np.ndarray  # [records, digests.DIGEST_BYTES] uint8, of the pictures as they were read
    left_out: Dict[int, str]  # row of the listing to reason
    sha256: str  # of the file


class Workspace:
    """The unfinished work in one folder."""

    def __init__(self, data_dir: str, plan: Plan) -> None:
        self.data_dir = data_dir
        self.folder = os.path.join(data_dir, FOLDER)
        self._plan = plan

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """The work is this process's alone for the time of the body; work for another plan is removed.

        Raises:
            UsageError: another process works there.
            OSError: the folder cannot be written.
        """
        os.makedirs(self.folder, exist_ok=True)
        descriptor = os.open(os.path.join(self.folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"--data_dir {self.data_dir}: another prepare is writing there; wait for it, or choose "
                    "another folder"
                ) from error
            shutil.rmtree(self.folder + _DONE, ignore_errors=True)
            self._clean()
            yield
        finally:
            os.close(descriptor)

    def _clean(self) -> None:
        """Keeps the whole shards of this plan, and nothing else."""
        stored = self._stored_plan()
        if stored is None or stored["fingerprint"] != self._plan.fingerprint:
            for name in stored["shards"] if stored is not None else []:
                with contextlib.suppress(FileNotFoundError):  # had been moved there when it was cut short
                    os.remove(os.path.join(self.data_dir, name))
            self._remove_all_but((_LOCK,))
            names = [shard.name for shard in self._plan.shards]
            plan = {"fingerprint": self._plan.fingerprint, "shards": names}
            files.write_json(os.path.join(self.folder, _PLAN), plan)
            return
        kept = {_LOCK, _PLAN}
        for shard in self._plan.shards:
            if self.is_whole(shard.name):
                kept |= {shard.name, shard.name + _ACCOUNT}
        self._remove_all_but(kept)

    def _remove_all_but(self, kept: Any) -> None:
        for name in os.listdir(self.folder):
            if name not in kept:
                os.remove(os.path.join(self.folder, name))

    def _stored_plan(self) -> Optional[Dict[str, Any]]:
        try:
            with open(os.path.join(self.folder, _PLAN), encoding="utf-8") as file:
                stored: Dict[str, Any] = json.load(file)
            return stored if {"fingerprint", "shards"} <= set(stored) else None
        except (OSError, ValueError, RecursionError, TypeError):
            return None

    def path(self, name: str) -> str:
        """Where shard `name` is written."""
        return os.path.join(self.folder, name)

    def is_whole(self, name: str) -> bool:
        """Whether shard `name` needs no more work, here or already in its place."""
        places = (self.path(name), os.path.join(self.data_dir, name))
        return os.path.exists(self.path(name) + _ACCOUNT) and any(map(os.path.exists, places))

    def whole_bytes(self) -> int:
        """Bytes of all whole shards."""
        names = [shard.name for shard in self._plan.shards if self.is_whole(shard.name)]
        places = [[self.path(name), os.path.join(self.data_dir, name)] for name in names]
        return sum(os.path.getsize(next(filter(os.path.exists, place))) for place in places)

    def write_account(self, name: str, account: Account) -> None:
        """Says that shard `name` is whole."""
        left_out = json.dumps({str(row): reason for row, reason in account.left_out.items()})
        with files.whole_file(self.path(name) + _ACCOUNT, "wb") as file:
            members: Dict[str, Any] = dict(account.columns)
            np.savez(
                file, digests=account.digests, left_out=np.array(left_out), sha256=np.array(account.sha256),
                **members,
            )  # fmt: skip

    def account(self, name: str) -> Account:
        """What is known of the whole shard `name`."""
        with np.load(self.path(name) + _ACCOUNT, allow_pickle=False) as stored:
            left_out = json.loads(str(stored["left_out"]))
            return Account(
                {column: stored[column] for column in RECORD_COLUMNS}, stored["digests"],
                {int(row): reason for row, reason in left_out.items()}, str(stored["sha256"]),
            )  # fmt: skip

    def publish(self, name: str) -> None:
        """Moves shard `name` to its place."""
        with contextlib.suppress(FileNotFoundError):  # it was moved before the last attempt was cut short
            os.replace(self.path(name), os.path.join(self.data_dir, name))

    def remove(self) -> None:
        """Removes the accounts, when all is published; first as a whole, in case this is cut short."""
        os.replace(self.folder, self.folder + _DONE)
        shutil.rmtree(self.folder + _DONE, ignore_errors=True)


def other_data(data_dir: str) -> List[str]:
    """Names in `data_dir` that stand for a data set, finished or of somebody else."""
    if not os.path.isdir(data_dir) or os.path.isdir(os.path.join(data_dir, FOLDER)):
        return []
    kinds = ("train-", "validation-", "dataset.json", "labels.txt")
    return sorted(name for name in os.listdir(data_dir) if name.startswith(kinds))
