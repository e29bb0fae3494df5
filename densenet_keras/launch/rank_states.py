"""What each rank is doing, for launcher and ranks to read: rank_logs/rank_R.state in the run folder.

A thread of every rank writes there twice in a few seconds, whatever the rank itself does. So a state that
no longer changes is that of a process that is stopped or gone, or whose host is; no clocks are compared.
A rank that ends well takes its file away.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
import traceback
from typing import Dict, Iterator, NamedTuple, Optional, Tuple

from densenet_keras.launch import processes, rank_logs
from densenet_keras.topology import Topology
from densenet_keras.watchdog import IN_CALLBACKS, WAITING, Others, State, Watchdog

POLL_SECONDS = 0.5
WRITE_SECONDS = 2.0  # from one state to the next of a rank that does the same thing all the time
STALE_SECONDS = 5.0  # without a new state: something is wrong with the process, or with its host
LOOK_AFTER_SECONDS = 2.0  # of a step before this rank looks at what the others do
SHOWN_AFTER_SECONDS = 5.0  # of a step before it says where in Python it is
PROBE_SECONDS = 1.0
UNREADABLE_SECONDS = 60.0  # a file system that answers nothing for so long: what was read is old
FRAMES = 6
_BYTES = 4096  # of a file; always the same, so that a full disk does not matter after the first time


class RankState(NamedTuple):
    """What a rank wrote of itself."""

    rank: int
    pid: int
    host: str
    machine: str  # see `processes.machine`
    began: str  # see `processes.began`
    writes: int  # of states, so far
    state: State
    where: Tuple[str, ...] = ()  # in Python, outermost first, of a rank that has been silent for a while
    reads_data: bool = False  # one of its threads is inside the input
    ended: str = ""  # why it gave up or failed


def path_of(log_dir: str, rank: int) -> str:
    """The file with the state of one rank."""
    return os.path.join(log_dir, rank_logs.FOLDER, f"rank_{rank}.state")


def read(log_dir: str, rank: int) -> Optional[RankState]:
    """The newest state of a rank; None if there is none, or it is just being written."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        with open(path_of(log_dir, rank), encoding="utf-8") as file:
            values = json.loads(file.read(_BYTES))
        values["state"] = State(**values["state"])
        values["where"] = tuple(values["where"])
        return RankState(**values)
    return None


class Announcer:
    """Writes this rank's state while the body of `announcing` runs, and looks at those of the others."""

    def __init__(self, log_dir: str, rank: int, watchdog: Watchdog) -> None:
        self._path = path_of(log_dir, rank)
        self._watchdog = watchdog
        self._job = threading.get_ident()
        self._lock = threading.Lock()
        self._written_at = -WRITE_SECONDS
        self._last = RankState(
            rank=rank,
            pid=os.getpid(),
            host=socket.gethostname(),
            machine=processes.machine(),
            began=processes.began(os.getpid()),
            writes=0,
            state=watchdog.state(),
        )
        self._peers: Optional[Peers] = None

    @contextlib.contextmanager
    def announcing(self) -> Iterator[Announcer]:
        """Inside, others can read what this rank, the calling thread, is doing."""
        done = threading.Event()
        thread = threading.Thread(target=self._announce, args=(done,), name="state", daemon=True)
        self.write()
        thread.start()
        try:
            yield self
        except (Exception, SystemExit) as error:
            self.leave(f"it failed: {type(error).__name__}: {error}")
            raise
        else:
            with self._lock, contextlib.suppress(OSError):
                os.remove(self._path)
        finally:
            done.set()

    def meet(self, topology: Topology, log_dir: str) -> None:
        """From now on the other ranks' states are looked at as well."""
        self._peers = Peers(log_dir, topology, self)
        self._watchdog.ask(self._peers)

    def write(self) -> None:
        """Writes the state as it is now."""
        state = self._watchdog.state()
        where: Tuple[str, ...] = ()
        reads_data = False
        if state.silent_seconds > SHOWN_AFTER_SECONDS:
            where, reads_data = _where(self._job), _reads_data()
        with self._lock:
            if not self._last.ended:
                self._put(self._last._replace(state=state, where=where, reads_data=reads_data))

    def leave(self, reason: str) -> None:
        """Leaves behind why this rank ends."""
        with self._lock:
            self._put(self._last._replace(ended=reason[: _BYTES // 4]))

    def _put(self, values: RankState) -> None:
        self._last = values._replace(writes=values.writes + 1)
        fields = {**self._last._asdict(), "state": self._last.state._asdict()}
        data = json.dumps(fields).encode()
        if len(data) > _BYTES:
            data = json.dumps({**fields, "where": [], "ended": self._last.ended[:100]}).encode()
        # Opened and closed every time: that is when a network file system shows it to other hosts.
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
            with contextlib.closing(os.fdopen(descriptor, "wb", buffering=0)) as file:
                file.write(data.ljust(_BYTES))

    def _announce(self, done: threading.Event) -> None:
        while not done.wait(POLL_SECONDS):
            state = self._watchdog.state()
            now = time.monotonic()
            if state.phase != self._last.state.phase or now - self._written_at >= WRITE_SECONDS:
                self._written_at = now
                self.write()
            if self._peers is not None:
                self._peers.look(state)


def _where(thread: int) -> Tuple[str, ...]:
    """The innermost frames of a thread of this process, outermost first."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return ()
    frames = traceback.extract_stack(frame)[-FRAMES:]
    return tuple(f"{each.filename}:{each.lineno} in {each.name}" for each in frames)


def _reads_data() -> bool:
    """Whether a thread of this process is inside our readers of data."""
    folder = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data", "")
    return any(
        inner.f_code.co_filename.startswith(folder)
        for frame in sys._current_frames().values()
        for inner, _ in traceback.walk_stack(frame)
    )


class View:
    """What one watcher knows of one rank.

    Attributes:
        last: the newest state read; None before there is one.
        stale_seconds: since the watcher last saw a new one.
    """

    def __init__(self) -> None:
        self.last: Optional[RankState] = None
        self.stale_seconds = 0.0
        self._seen_writing: Optional[Tuple[str, int]] = None

    @property
    def is_known(self) -> bool:
        """Whether the state is of this run: its process was seen writing, so it is no earlier run's rest."""
        return self.last is not None and self._seen_writing == (self.last.machine, self.last.pid)

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
            view.update(read(self._log_dir, rank), seconds)
        if waits:
            self._at_work = any(is_at_work(view) for view in self._views.values())
            reasons = [self._why_lost(rank, view, mine) for rank, view in self._views.items()]
            self._lost = next(filter(None, reasons), "")

    def _why_lost(self, rank: int, view: View, mine: State) -> str:
        last, status = view.last, view.status
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


def is_at_work(view: View) -> bool:
    """Whether a rank is known to do something that has not taken too long."""
    last = view.last
    if last is None or not view.is_known or view.stale_seconds > STALE_SECONDS or last.ended:
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
    doing = f"{state.phase}, at step {state.step}"
    unheard = f"not heard of for {view.stale_seconds:.0f} s"
    if last.ended:
        return f"rank {rank} ({process}): {last.ended}"
    if status == processes.STOPPED:
        return f"rank {rank} ({process}): stopped by a signal such as SIGSTOP while {doing}, {unheard}"
    if status == "":
        return f"rank {rank} ({process}): gone; it was {doing}"
    if view.stale_seconds > STALE_SECONDS:
        return f"rank {rank} ({process}): {unheard}; it was {doing}"
    data = ", reading data" if last.reads_data else ""
    return f"rank {rank} ({process}): {doing}{data}, silent for {state.silent_seconds:.0f} s"
