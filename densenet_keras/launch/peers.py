"""The other ranks as one of them sees them: whether they are at work, and whether they will come back."""

from __future__ import annotations

import socket
import time
from typing import Dict

from densenet_keras.launch import processes
from densenet_keras.launch.rank_states import POLL_SECONDS, Announcer
from densenet_keras.launch.views import STALE_SECONDS, View, describe, is_at_work
from densenet_keras.topology import Topology
from densenet_keras.watchdog import IN_CALLBACKS, Others, State

LOOK_AFTER_SECONDS = 2.0  # of a step before this rank looks at what the others do
PROBE_SECONDS = 1.0
UNREADABLE_SECONDS = 60.0  # a file system that answers nothing for so long: what was read is old


class Peers(Others):
    """The other ranks, as their states in the run folder and their ports show them."""

    def __init__(self, log_dir: str, topology: Topology, announcer: Announcer) -> None:
        self._log_dir, self._topology, self._announcer = log_dir, topology, announcer
        self._views = {rank: View() for rank in range(topology.size) if rank != topology.rank}
        self._refused: Dict[int, int] = {}
        self._looked_at = time.monotonic()
        self._lost = ""
        self._at_work = False

    def are_at_work(self) -> bool:
        """See `Others.are_at_work`."""
        return self._at_work and time.monotonic() - self._looked_at < UNREADABLE_SECONDS

    def lost(self) -> str:
        """See `Others.lost`."""
        return self._lost

    def story(self) -> str:
        """See `Others.story`."""
        return "".join(f"{describe(rank, view)}\n" for rank, view in sorted(self._views.items()))

    def leave(self, reason: str) -> None:
        """See `Others.leave`."""
        self._announcer.leave(f"it gave up: {reason}")

    def look(self, mine: State) -> None:
        """Reads the others' states if this rank has been silent for a while, or does not know them yet."""
        waits = mine.silent_seconds >= LOOK_AFTER_SECONDS
        if not waits:
            self._lost, self._at_work, self._refused = "", False, {}
            for view in self._views.values():
                view.begin_anew()
            if all(view.is_known for view in self._views.values()):
                return
        now = time.monotonic()
        seconds = min(now - self._looked_at, 2 * POLL_SECONDS)  # as in the watchdog
        self._looked_at = now
        for rank, view in self._views.items():
            view.look(self._log_dir, rank, seconds)
        if waits:
            self._at_work = any(is_at_work(view) for view in self._views.values())
            reasons = [self._why_lost(rank, view, mine) for rank, view in self._views.items()]
            self._lost = next(filter(None, reasons), "")

    def _why_lost(self, rank: int, view: View, mine: State) -> str:
        last, status = view.last, view.status
        if view.has_left:  # it needs nobody any more; one that waits for it in vain runs into its own limit
            return ""
        if last is not None and view.is_known:
            if last.ended:
                return f"rank {rank} on {last.host} has ended: {last.ended}"
            if status == "":
                return f"rank {rank} is gone: its process {last.pid} on {last.host} was killed"
        is_stale = view.stale_seconds >= STALE_SECONDS
        # Before the first step a rank need not listen yet: its host may come up later.
        if is_stale and mine.beats > 0 and self._refuses(rank):
            return f"rank {rank} is gone: nothing listens at {self._topology.addresses[rank]} any more"
        # One that may run has a watchdog of its own. This rank speaks before its own time is over.
        may_run = status != processes.STOPPED and not (status is None and is_stale)
        limit = min(mine.step_limit_seconds, mine.timeout_seconds) - 2 * POLL_SECONDS
        if may_run or not view.is_known or mine.silent_seconds < limit or mine.phase == IN_CALLBACKS:
            return ""
        return f"this rank waits for {describe(rank, view)}"

    def _refuses(self, rank: int) -> bool:
        """Whether a rank whose port had to be open refuses connections, twice in a row."""
        if not self._topology.addresses:
            return False
        host, _, port = self._topology.addresses[rank].rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
        except ConnectionRefusedError:
            self._refused[rank] = self._refused.get(rank, 0) + 1
        except OSError:  # a time-out tells nothing of the process
            pass
        else:
            self._refused[rank] = 0
        return self._refused.get(rank, 0) > 1
