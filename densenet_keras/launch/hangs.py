"""Which rank holds up the others, as the launcher sees it: notes while it waits, a name when it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple

from densenet_keras.launch import processes
from densenet_keras.launch.rank_logs import RankLog
from densenet_keras.launch.rank_states import FRAMES, CallbackNote, short
from densenet_keras.launch.views import STALE_SECONDS, View, describe
from densenet_keras.watchdog import TRAINING, WAITING

POLL_SECONDS = 1.0
STOPPED_SECONDS = 5.0  # until a stopped rank is spoken of
ANSWER_SECONDS = 1.0  # that a rank has to write its stack
_FRAME = re.compile(r'  File "(.*)", line (\d+|\?+) in (.*)')


class Verdict(NamedTuple):
    """Who held up the run, and how that shows, in lines."""

    rank: int
    story: Tuple[str, ...]


class HangWatch:
    """Follows the states of the ranks that a launcher started."""

    def __init__(self, log_dir: str) -> None:
        self._log_dir = log_dir
        self._views: Dict[int, View] = {}
        self._stopped: Dict[int, float] = {}  # rank to the seconds that it has been
        self._callback_notes: Dict[int, CallbackNote] = {}
        self._looked_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time for `poll`."""
        return time.monotonic() - self._looked_at >= POLL_SECONDS

    def poll(self, pids: Mapping[int, int]) -> Tuple[List[str], Optional[int]]:
        """What to tell, and the rank that hangs if it cannot say so itself.

        Args:
            pids: process of each rank that runs.
        """
        now = time.monotonic()
        seconds = min(now - self._looked_at, 2 * POLL_SECONDS)  # a launcher may be stopped, too
        self._looked_at = now
        self._look(pids, seconds)
        stopped = {rank for rank, pid in pids.items() if processes.status(pid) == processes.STOPPED}
        if len(stopped) == len(pids):
            stopped = set()  # somebody has paused the whole run
        self._stopped = {rank: self._stopped.get(rank, 0.0) + seconds for rank in stopped}
        notes = [*self._notes_on_stopped(pids, seconds), *self._notes_on_callbacks(pids)]
        return notes, next((rank for rank in pids if self._hangs(rank)), None)

    def stop_seconds(self) -> float:
        """What the slowest rank may need from a request to stop to its end, by what it took so far."""
        states = [view.last.state for view in self._views.values() if view.last is not None]
        return max((state.stop_seconds for state in states), default=0.0)

    def has_trained(self, started: Mapping[int, int]) -> bool:
        """Whether a rank of this start, given with its process, has done a step that could be lost."""
        self._look(started)
        states = [view.last.state for view in self._views.values() if view.last is not None]
        return any(state.beats > 0 for state in states)

    def judge(
        self,
        started: Mapping[int, int],
        running: Mapping[int, int],
        gave_up: int,
        logs: Mapping[int, RankLog],
    ) -> Verdict:
        """Who held up the run that rank `gave_up` has given up.

        Args:
            started: process of each rank of this start.
            running: of those that still run.
        """
        self._look(started)
        rank = culprit(self._views, gave_up)
        lines = [describe(rank, view) for rank, view in sorted(self._views.items())]
        stack = self._stack(rank, running.get(rank), logs[rank])
        if stack:
            lines.append(f"the Python stack of rank {rank}:")
            lines += [f"  | {line}" for line in stack]
        waiting = [str(other) for other in sorted(self._views) if other != rank]
        if waiting:
            ranks = "rank" if len(waiting) == 1 else "ranks"
            lines.append(f"{ranks} {', '.join(waiting)} waited for rank {rank}")
        return Verdict(rank, tuple(lines))

    def _look(self, pids: Mapping[int, int], seconds: float = 0.0) -> None:
        for rank, pid in pids.items():
            self._views.setdefault(rank, View()).look(self._log_dir, rank, seconds, pid)

    def _notes_on_stopped(self, pids: Mapping[int, int], seconds: float) -> List[str]:
        return [
            f"rank {rank} (process {pids[rank]}) is stopped by a signal such as SIGSTOP, and the other ranks "
            f"wait for it; kill -CONT {pids[rank]} lets it go on"
            for rank, since in self._stopped.items()
            if since - seconds < STOPPED_SECONDS <= since
        ]

    def _notes_on_callbacks(self, pids: Mapping[int, int]) -> List[str]:
        notes = []
        for rank in pids:
            last = self._views[rank].last if rank in self._views else None
            if last is not None:
                note = self._callback_notes.setdefault(rank, CallbackNote(rank))
                notes.append(note.due(last.state, last.where))
        return list(filter(None, notes))

    def _hangs(self, rank: int) -> bool:
        view = self._views.get(rank)
        if view is None or view.last is None or view.has_left:
            return False
        limit = view.last.state.step_limit_seconds
        if rank in self._stopped:
            return self._stopped[rank] > limit
        if view.status in (processes.STOPPED, processes.TRACED):
            return False
        # Its Python has not run for so long: something holds the interpreter, or the process hangs in the
        # kernel. A rank whose Python runs has a watchdog of its own.
        return view.stale_seconds > max(limit, view.last.state.timeout_seconds)

    def _stack(self, rank: int, pid: Optional[int], log: RankLog) -> List[str]:
        """The Python stack of a rank's work, outermost first: as it wrote it, or asked for by a signal."""
        view = self._views[rank]
        written = (view.last.reading or view.last.where) if view.last is not None else ()
        if pid is None or (written and view.stale_seconds < STALE_SECONDS):
            return [short(line) for line in written]
        before = os.path.getsize(log.path)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGUSR1)
            os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            time.sleep(0.1)
            stack = work_stack(log.text_from(before))
            if stack:
                return [short(line) for line in stack]
        return []


def culprit(views: Mapping[int, View], gave_up: int) -> int:
    """The rank that the others waited for, as far as their states tell; else the one that gave up."""
    most = max((view.last.state.beats for view in views.values() if view.last is not None), default=0)
    reading = [rank for rank, view in views.items() if view.last is not None and view.last.reading]

    def suspicion(rank: int) -> int:
        """The higher, the likelier."""
        view = views[rank]
        if view.last is None or view.has_left:
            return 0
        last, state = view.last, view.last.state
        signs = (
            last.ended.startswith("it failed"),
            not last.ended and view.status == processes.STOPPED,
            not last.ended and view.status == "",
            not last.ended and view.stale_seconds > STALE_SECONDS,
            state.phase != WAITING and state.beats < most,
            state.phase not in (TRAINING, WAITING),
            reading == [rank],
        )
        return next((len(signs) - place for place, sign in enumerate(signs) if sign), 0)

    return max(views, key=lambda rank: (suspicion(rank), rank == gave_up, -rank))


def work_stack(text: str) -> List[str]:
    """The stack of the thread that does a rank's work, outermost first, in what faulthandler wrote."""
    for block in reversed(re.split(r"^(?:Current thread|Thread) 0x.*$", text, flags=re.MULTILINE)):
        frames = [found.groups() for found in map(_FRAME.match, block.split("\n")) if found]
        if any(os.path.basename(file) == "worker.py" and name == "_run" for file, _, name in frames):
            return [f"{file}:{line} in {name}" for file, line, name in frames[:FRAMES][::-1]]
    return []
