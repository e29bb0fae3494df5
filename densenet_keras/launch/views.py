"""What a launcher or a rank knows of another rank by the states that it writes."""

from __future__ import annotations

from typing import Optional, Tuple

from densenet_keras.launch import processes, rank_states
from densenet_keras.launch.rank_states import RankState
from densenet_keras.watchdog import WAITING

STALE_SECONDS = 5.0  # without a new state: something is wrong with the process, or with its host


class View:
    """What one watcher knows of one rank.

    Attributes:
        last: the newest state read; None before there is one.
        stale_seconds: since the watcher last saw a new one.
        has_left: it ended well.
    """

    def __init__(self) -> None:
        self.last: Optional[RankState] = None
        self.stale_seconds = 0.0
        self.has_left = False
        self._seen_writing: Optional[Tuple[str, int]] = None

    @property
    def is_known(self) -> bool:
        """Whether the state is of this run: its process was seen writing, so it is no earlier run's rest."""
        return self.last is not None and self._seen_writing == (self.last.machine, self.last.pid)

    def look(self, log_dir: str, rank: int, seconds: float, pid: Optional[int] = None) -> None:
        """Reads what the rank writes, `seconds` after the last time; only of process `pid`, if given."""
        found = rank_states.read(log_dir, rank)
        if found is not None and pid is not None and found.pid != pid:
            found = None  # of an earlier start
        self.update(found, seconds)
        self.has_left = found is None and self.last is not None and rank_states.has_left(log_dir, rank)

    def update(self, found: Optional[RankState], seconds: float) -> None:
        """Takes what was read `seconds` after the last time."""
        before = self.last
        if found is None or (before is not None and (found.pid, found.writes) == (before.pid, before.writes)):
            self.stale_seconds += seconds
            return
        self.last, self.stale_seconds = found, 0.0
        if before is not None and (found.machine, found.pid) == (before.machine, before.pid):
            self._seen_writing = (found.machine, found.pid)

    def begin_anew(self) -> None:
        """Forgets how long nothing was heard: nobody has looked meanwhile."""
        self.stale_seconds = 0.0

    @property
    def status(self) -> Optional[str]:
        """The kernel's letter for the process, "" if it is gone; None if it runs where we cannot see it."""
        if self.last is None or self.last.machine != processes.machine() or not self.last.began:
            return None
        if processes.began(self.last.pid) != self.last.began:
            return ""
        return processes.status(self.last.pid).replace("Z", "").replace("X", "")


def is_at_work(view: View) -> bool:
    """Whether a rank is known to do something that has not taken too long."""
    last = view.last
    if last is None or not view.is_known or view.stale_seconds > STALE_SECONDS or last.ended or view.has_left:
        return False
    if view.status in ("", processes.STOPPED) or last.state.phase == WAITING:
        return False
    return last.state.silent_seconds < last.state.timeout_seconds


def describe(rank: int, view: View) -> str:
    """What a rank does or did, in a line."""
    last = view.last
    if last is None:
        return f"rank {rank}: not heard of"
    state, status = last.state, view.status
    process = f"process {last.pid} on {last.host}"
    doing = f"{state.phase}{', reading data' if last.reading else ''}, at step {state.step}"
    unheard = f"not heard of for {view.stale_seconds:.0f} s"
    if view.has_left:
        return f"rank {rank} ({process}): it has ended well"
    if last.ended:
        return f"rank {rank} ({process}): {doing}; {last.ended}"
    if status == processes.STOPPED:
        return f"rank {rank} ({process}): stopped by a signal such as SIGSTOP while {doing}, {unheard}"
    if status == "":
        return f"rank {rank} ({process}): gone; it was {doing}"
    if view.stale_seconds > STALE_SECONDS:
        return f"rank {rank} ({process}): {unheard}; it was {doing}"
    return f"rank {rank} ({process}): {doing}, silent for {state.silent_seconds:.0f} s"
