"""What each rank is doing, for launcher and ranks to read: rank_logs/rank_R.state in the run folder.

A thread of every rank writes there twice in a few seconds, whatever the rank itself does. So a state that
no longer changes is that of a process that is stopped or gone, or whose host is; no clocks are compared.
A rank that ends well takes its file away.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import sys
import threading
import time
import traceback
from typing import Callable, Iterator, NamedTuple, Optional, Tuple

from densenet_keras.launch import processes, rank_logs
from densenet_keras.watchdog import IN_CALLBACKS, State, Watchdog

POLL_SECONDS = 0.5
WRITE_SECONDS = 2.0  # from one state to the next of a rank that does the same thing all the time
SHOWN_AFTER_SECONDS = 5.0  # of a step before it says where in Python it is
FRAMES = 6
CALLBACKS_SECONDS = 60.0  # until callbacks that take so long are spoken of
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
    reading: Tuple[str, ...] = ()  # the same of a thread that is inside our readers of data
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
        values.update(where=tuple(values["where"]), reading=tuple(values["reading"]))
        return RankState(**values)
    return None


def has_left(log_dir: str, rank: int) -> bool:
    """Whether a rank that was heard of has taken its state away, as one that ends well does."""
    return not os.path.exists(path_of(log_dir, rank))


class Announcer:
    """Writes this rank's state while the body of `announcing` runs, and looks at those of the others."""

    def __init__(self, log_dir: str, rank: int, watchdog: Watchdog, *, speaks: bool = False) -> None:
        """
        Args:
            speaks: says on stderr when callbacks take long; a launcher does it for its ranks.
        """
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
        self._is_through = False
        self._look: Callable[[State], None] = lambda state: None
        self._note = CallbackNote(rank) if speaks else None

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
                self._is_through = True  # the thread might put the file back
                os.remove(self._path)
        finally:
            done.set()

    def look_by(self, look: Callable[[State], None]) -> None:
        """From now on `look` is called with each new state, to see what the other ranks do."""
        self._look = look

    def write(self) -> None:
        """Writes the state as it is now."""
        state = self._watchdog.state()
        where: Tuple[str, ...] = ()
        reading: Tuple[str, ...] = ()
        if state.silent_seconds > SHOWN_AFTER_SECONDS:
            where, reading = _where(self._job), _reading()
        with self._lock:
            if not (self._last.ended or self._is_through):
                self._put(self._last._replace(state=state, where=where, reading=reading))

    def leave(self, reason: str) -> None:
        """Leaves behind why this rank ends."""
        with self._lock:
            self._put(self._last._replace(ended=reason[: _BYTES // 4]))

    def _put(self, values: RankState) -> None:
        self._last = values._replace(writes=values.writes + 1)
        fields = {**self._last._asdict(), "state": self._last.state._asdict()}
        data = json.dumps(fields).encode()
        if len(data) > _BYTES:
            data = json.dumps(
                {**fields, "where": [], "reading": [], "ended": self._last.ended[:100]}
            ).encode()
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
            self._look(state)
            note = self._note.due(state, self._last.where) if self._note is not None else ""
            if note and select.select([], [2], [], 0)[1]:  # what cannot be read now must not stop this thread
                os.write(2, f"{note}\n".encode())


def _where(thread: int) -> Tuple[str, ...]:
    """The innermost frames of a thread of this process, outermost first."""
    frame = sys._current_frames().get(thread)
    frames = traceback.extract_stack(frame)[-FRAMES:] if frame is not None else []
    return tuple(f"{each.filename}:{each.lineno} in {each.name}" for each in frames)


def _reading() -> Tuple[str, ...]:
    """As `_where`, of a thread that is inside our readers of data; empty if none is."""
    folder = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data", "")
    for thread, frame in sys._current_frames().items():
        if any(inner.f_code.co_filename.startswith(folder) for inner, _ in traceback.walk_stack(frame)):
            return _where(thread)
    return ()


class CallbackNote:
    """What to say of a rank in which somebody else's code, or a reader of the output, takes its time."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._due_seconds = CALLBACKS_SECONDS

    def due(self, state: State, where: Tuple[str, ...]) -> str:
        """A sentence if it is time for one, which it is more and more rarely; else empty."""
        if state.phase != IN_CALLBACKS:
            self._due_seconds = CALLBACKS_SECONDS
        if state.phase != IN_CALLBACKS or state.silent_seconds < self._due_seconds:
            return ""
        self._due_seconds = 2 * state.silent_seconds
        place = f", at {short(where[-1])}" if where else ""
        return (
            f"rank {self._rank} has been {IN_CALLBACKS} for {state.silent_seconds:.0f} s, and the run waits "
            f"for it{place}"
        )


def short(frame: str) -> str:
    """A frame with its path from the project's or the library's folder on."""
    return re.sub(r"^.*/(?=densenet_keras/|site-packages/|python3\.\d+/)", "", frame)
