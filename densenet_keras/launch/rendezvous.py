"""How ranks that a scheduler started without addresses find each other: files in the run folder.

Every rank reserves a port and writes rank_R.json: a token drawn for this process, and where it can be
reached. Rank 0 puts all of them into roster.json. Files of an earlier job with the same key may lie
there, and nothing in them tells; so nobody is believed who does not answer: rank 0 proposes a roster
with a fresh nonce, ranks that find their own token in it repeat the nonce in their file, and only when
all have is the roster final. A rank believes a final roster with its own token alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
import uuid
from typing import Any, Dict, List, Mapping, Optional, Tuple

from densenet_keras import files
from densenet_keras.errors import RunError

FOLDER = ".rendezvous"
ROSTER = "roster.json"
POLL_SECONDS = 0.1
NEWS_SECONDS = 10.0  # from one line about missing ranks to the next

# What tells one job from another in the same run folder, the first that is set: Open MPI of several
# generations, Slurm, Ascend platforms.
JOB_VARIABLES = (
    ("PMIX_NAMESPACE",),
    ("OMPI_MCA_ess_base_jobid",),
    ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
    ("JOB_ID",),
)


def job_key(environ: Mapping[str, str]) -> str:
    """A folder name that all ranks of a job share, other jobs mostly do not."""
    for names in JOB_VARIABLES:
        values = [environ[name] for name in names if environ.get(name)]
        if values:
            return re.sub(r"[^A-Za-z0-9_-]", "_", "-".join(values))
    return "job"


class Meeting:
    """One rank's part; the port it reserves stays reserved until `close`.

    Args:
        log_dir: a folder that all ranks see.
        key: see `job_key`.
    """

    def __init__(self, log_dir: str, key: str, rank: int, size: int) -> None:
        self._folder = os.path.join(log_dir, FOLDER, key)
        self._rank, self._size = rank, size
        # As in the launcher: bound and not listening, so that TensorFlow's server can bind it too.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("", 0))
        self._me = {
            "token": uuid.uuid4().hex,
            "machine": _machine(),
            "host": _own_address(),
            "port": self._socket.getsockname()[1],
        }
        self._accepted = ""
        os.makedirs(self._folder, exist_ok=True)
        self._introduce()

    def close(self) -> None:
        """Gives the port back."""
        self._socket.close()

    def addresses(self, timeout_seconds: float) -> Tuple[str, ...]:
        """host:port of every rank, once all are there.

        Raises:
            RunError: ranks are missing after `timeout_seconds`; which ones.
        """
        started = time.monotonic()
        told = started
        proposal: Dict[str, Any] = {}
        while True:
            if self._rank == 0:
                proposal, missing = self._propose(proposal)
                roster: Optional[Dict[str, Any]] = None if missing else proposal
            else:
                missing = [0]
                roster = self._final_roster()
            if roster is not None:
                return _addresses(roster["members"])
            now = time.monotonic()
            if now - started > timeout_seconds:
                raise RunError(
                    f"rank {self._rank} of {self._size} met no rank {_listed(missing)} in {self._folder} "
                    f"within {timeout_seconds:.0f} s; start all ranks, with a --log_dir that all of them see"
                )
            if now - told > NEWS_SECONDS:
                told = now
                os.write(2, f"rank {self._rank} waits for rank {_listed(missing)}\n".encode())
            time.sleep(POLL_SECONDS)

    def _introduce(self) -> None:
        self._write(f"rank_{self._rank}.json", {**self._me, "accepted": self._accepted})

    def _propose(self, proposal: Dict[str, Any]) -> Tuple[Dict[str, Any], List[int]]:
        """Rank 0: the newest proposal, final if nobody is missing."""
        entries = [self._read(f"rank_{rank}.json") for rank in range(self._size)]
        entries[0] = self._me
        missing = [rank for rank, entry in enumerate(entries) if not _is_member(entry)]
        if missing:
            return proposal, missing
        members = [{name: entry.get(name) for name in self._me} for entry in entries]
        if proposal.get("members") != members:
            proposal = {"nonce": uuid.uuid4().hex, "final": False, "members": members}
            self._write(ROSTER, proposal)
        missing = [
            rank for rank, entry in enumerate(entries)
            if rank > 0 and entry.get("accepted") != proposal["nonce"]
        ]  # fmt: skip
        if not missing:
            proposal["final"] = True
            self._write(ROSTER, proposal)
        return proposal, missing

    def _final_roster(self) -> Optional[Dict[str, Any]]:
        """The others: the roster, once it is final and holds this very process."""
        roster = self._read(ROSTER)
        members = roster.get("members")
        if not isinstance(members, list) or len(members) != self._size or not all(map(_is_member, members)):
            return None
        if members[self._rank]["token"] != self._me["token"]:
            return None
        if roster.get("final"):
            return roster
        nonce = str(roster.get("nonce"))
        if self._accepted != nonce:
            self._accepted = nonce
            self._introduce()
        return None

    def _write(self, name: str, values: Dict[str, Any]) -> None:
        files.write_json(os.path.join(self._folder, name), values)

    def _read(self, name: str) -> Dict[str, Any]:
        """The file's object; empty while there is none."""
        try:
            with open(os.path.join(self._folder, name), encoding="utf-8") as file:
                values = json.load(file)
        except (OSError, ValueError, RecursionError):
            return {}
        return values if isinstance(values, dict) else {}


def _is_member(entry: Any) -> bool:
    """Whether a file of the folder holds what a rank writes: anybody may have put it there."""
    if not isinstance(entry, dict) or type(entry.get("port")) is not int:
        return False
    return 0 < entry["port"] < 65536 and all(
        isinstance(entry.get(name), str) and entry[name] for name in ("token", "machine", "host")
    )


def _addresses(members: List[Dict[str, Any]]) -> Tuple[str, ...]:
    one_machine = len({member["machine"] for member in members}) == 1
    return tuple(f"{'127.0.0.1' if one_machine else member['host']}:{member['port']}" for member in members)


def _machine() -> str:
    """Equal for processes that reach each other over the loopback interface."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            parts.append(file.read().strip())
        parts.append(os.readlink("/proc/self/ns/net"))
    return " ".join(parts)


def _own_address() -> str:
    """The address other hosts most likely reach this one at: that of the default route."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # a documentation address; a datagram socket sends nothing here
        return str(probe.getsockname()[0])
    return socket.gethostname()


def _listed(ranks: List[int]) -> str:
    return ", ".join(map(str, ranks))
