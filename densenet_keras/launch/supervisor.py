"""Starts the ranks of one host, watches them, and ends them together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Deque, Dict, Iterator, List, NamedTuple, Optional, Sequence, TextIO, Tuple, Union

from densenet_keras.errors import EXIT_DONE, EXIT_HUNG, EXIT_INTERRUPTED, EXIT_TERMINATED, RunError
from densenet_keras.launch.hangs import HangWatch
from densenet_keras.launch.outlet import Outlet
from densenet_keras.launch.rank_logs import FinalLines, RankLog, tee
from densenet_keras.stop import ASKED_BY, SIGNALS, is_repeated

# After a failure the other ranks mostly hang inside TensorFlow: seconds after it, signal. One that is
# on its way out has the time between.
ABORT = ((0.0, signal.SIGTERM), (2.0, signal.SIGKILL))
LEAVE_SECONDS = 30.0  # of a rank that has saved
DRAIN_SECONDS = 2.0
POLL_SECONDS = 0.05
STOPPED = {EXIT_INTERRUPTED: signal.SIGINT, EXIT_TERMINATED: signal.SIGTERM}


class RankStart(NamedTuple):
    """One process to start: its rank and whole environment."""

    rank: int
    environment: Dict[str, str]


class Failure(NamedTuple):
    """The rank that failed first: exit code, or minus the signal that killed it.

    With EXIT_HUNG it is the rank that the others waited for; `story` then says what all of them did.
    """

    rank: int
    code: int
    story: Tuple[str, ...] = ()


@dataclass
class Outcome:
    """How the ranks ended.

    Attributes:
        failure: None if none failed.
        stop_signal: the signal that asked the run to stop, 0 if none did.
        killed: ranks that did not stop in time.
        logs: by rank.
    """

    failure: Optional[Failure] = None
    stop_signal: int = 0
    killed: List[int] = field(default_factory=list)
    logs: Dict[int, RankLog] = field(default_factory=dict)


class _Exited(NamedTuple):
    rank: int


def supervise(
    command: Sequence[str],
    starts: Sequence[RankStart],
    log_dir: str,
    grace_seconds: float,
    pause_seconds: float = 0.0,
) -> Outcome:
    """Runs `command` once for each of `starts`, after a pause, and returns when all have ended.

    The first rank's output also goes to this process's stdout and stderr. SIGINT and SIGTERM are
    passed on; ranks that have not left `grace_seconds` later, or as much later as their session.runs
    need, are killed, at a second signal at once. A signal that follows within a second is not a second
    one: see `stop.is_repeated`.

    Raises:
        RunError: a process could not be started; none is left then.
    """
    ranks = _Ranks(grace_seconds, log_dir)
    with ranks.receiving_signals():
        try:
            for start in starts if ranks.pause(pause_seconds) else ():
                ranks.start(command, start, log_dir, shown=start is starts[0])
            return ranks.wait()
        finally:
            ranks.destroy()


class _Ranks:
    """The processes, and what happens to them."""

    def __init__(self, grace_seconds: float, log_dir: str) -> None:
        self._grace_seconds = grace_seconds
        self._hangs = HangWatch(log_dir)
        self._outlets: List[Outlet] = []  # the last one is that of stderr
        # Signal handlers append to it too, which excludes a Queue: its lock may be held just then. (A
        # SimpleQueue may wait for ever in Python 3.7, whatever the time-out.)
        self._events: Deque[Union[int, _Exited]] = deque()
        self._running: Dict[int, subprocess.Popen[bytes]] = {}
        self._started: Dict[int, int] = {}  # process of each rank
        self._tees: List[threading.Thread] = []
        self._due: List[Tuple[float, int]] = []  # (monotonic time, signal for all that still run)
        self._asked_at: Optional[float] = None  # monotonic time of a first signal
        self._outcome = Outcome()

    @contextlib.contextmanager
    def receiving_signals(self) -> Iterator[None]:
        """Signals become events; outside the main thread there are none to receive."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous: Dict[signal.Signals, Any] = {}
        for signum in SIGNALS:
            if signum == signal.SIGHUP and signal.getsignal(signum) == signal.SIG_IGN:
                continue  # nohup
            previous[signum] = signal.signal(signum, lambda number, frame: self._events.append(number))
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)

    def pause(self, seconds: float) -> bool:
        """Waits; whether no signal came meanwhile."""
        until = time.monotonic() + seconds
        while not self._events and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        for event in self._events:
            if isinstance(event, int):  # no rank runs that it could be passed on to
                self._outcome.stop_signal = ASKED_BY[signal.Signals(event)]
        return not self._outcome.stop_signal

    def start(self, command: Sequence[str], start: RankStart, log_dir: str, shown: bool) -> None:
        """Starts one rank, in a session of its own: a terminal's ctrl-C reaches the launcher alone."""
        log = RankLog(log_dir, start.rank)
        self._outcome.logs[start.rank] = log
        # Through two pipes a progress bar and the lines above it would lose their order.
        joined = not shown or _go_to_one_place(sys.stdout, sys.stderr)
        # Blocked signals stay blocked in the new process until its handlers are in place.
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            process = subprocess.Popen(
                list(command),
                env=start.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if shown else log.file,
                stderr=subprocess.STDOUT if joined else subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise RunError(f"rank {start.rank} could not be started: {error}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        self._running[start.rank] = process
        self._started[start.rank] = process.pid
        if shown:
            for pipe, stream in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
                if pipe:
                    self._outlets.append(Outlet(stream.fileno(), log.path))
                    self._tees.append(tee(pipe, FinalLines(log.file), self._outlets[-1]))
        threading.Thread(
            target=self._announce_exit, args=(start.rank, process.pid), name="exit", daemon=True
        ).start()

    def _announce_exit(self, rank: int, pid: int) -> None:
        # One waiting thread a rank puts exits in the order in which they happen. Leaving the dead
        # process unreaped keeps its number from being used again while signals may still go to it.
        with contextlib.suppress(ChildProcessError):  # reaped already
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self._events.append(_Exited(rank))

    def wait(self) -> Outcome:
        """Handles events until every rank has ended."""
        while self._running:
            if self._events:
                event = self._events.popleft()
                if isinstance(event, _Exited):
                    self._on_exit(event.rank)
                else:
                    self._on_signal(event)
            elif self._due and self._due[0][0] <= time.monotonic():
                self._send(self._due.pop(0)[1])
            elif self._outcome.failure is None and self._hangs.is_due():
                self._look_for_hangs()
            else:
                time.sleep(POLL_SECONDS)
        return self._outcome

    def _look_for_hangs(self) -> None:
        notes, hung = self._hangs.poll(self._pids())
        for note in notes:
            self._say(note)
        if hung is not None:
            self._fail(hung, EXIT_HUNG)

    def _on_signal(self, number: int) -> None:
        now = time.monotonic()
        if self._outcome.failure is not None:  # all are being ended already
            self._outcome.stop_signal = ASKED_BY[signal.Signals(number)]
            return
        if self._asked_at is not None:
            if not is_repeated(number, now - self._asked_at):
                self._due = [(now, signal.SIGKILL)]
            return
        self._asked_at = now
        if self._outcome.stop_signal:
            return  # a rank was asked before
        seconds = self._grace()
        self._say(
            "stopping: the ranks finish their session.run, save and leave, for which they have "
            f"{seconds:.0f} s; again to kill them"
        )
        self._stop(ASKED_BY[signal.Signals(number)])

    def _grace(self) -> float:
        """How long ranks that are asked to stop now may take, by what their steps and saves took so far."""
        known = self._hangs.stop_seconds()
        return max(self._grace_seconds, known + LEAVE_SECONDS if known else 0.0)

    def _stop(self, signum: int) -> None:
        self._outcome.stop_signal = signum
        self._due = [(time.monotonic() + self._grace(), signal.SIGKILL)]
        self._send(signum)

    def _on_exit(self, rank: int) -> None:
        process = self._running.pop(rank)
        _kill_group(process.pid, signal.SIGKILL)  # what the rank itself started
        code = process.wait()
        if self._outcome.failure is not None or code == EXIT_DONE or rank in self._outcome.killed:
            return
        if -code in SIGNALS and self._outcome.stop_signal:  # before it could handle any
            return
        if code in STOPPED:  # somebody sent the signal to this rank alone
            if not self._outcome.stop_signal:
                self._say(
                    f"rank {rank} was asked to stop by {STOPPED[code].name}: all ranks stop, for which they "
                    f"have {self._grace():.0f} s"
                )
                self._stop(STOPPED[code])
            return
        if code == EXIT_HUNG and self._outcome.stop_signal and not self._hangs.has_trained(self._started):
            return  # with nothing to save, another had left before this one heard of the signal
        self._fail(rank, code)

    def _fail(self, rank: int, code: int) -> None:
        story: Tuple[str, ...] = ()
        if code == EXIT_HUNG:  # before the ranks are ended: the one that is waited for may tell where it is
            rank, story = self._hangs.judge(self._started, self._pids(), rank, self._outcome.logs)
        self._outcome.failure = Failure(rank, code, story)
        now = time.monotonic()
        self._due = [(now + seconds, signum) for seconds, signum in ABORT]

    def _pids(self) -> Dict[int, int]:
        return {rank: process.pid for rank, process in self._running.items()}

    def _say(self, text: str) -> None:
        """As `say`, without waiting for whoever reads it."""
        if self._outlets:
            self._outlets[-1].put(f"{text}\n".encode())
        else:
            say(text)

    def _send(self, signum: int) -> None:
        if signum == signal.SIGKILL and self._outcome.failure is None:
            self._outcome.killed += sorted(self._running)
        for process in self._running.values():
            _kill_group(process.pid, signum)

    def destroy(self) -> None:
        """Leaves nothing behind, whatever happened."""
        for process in self._running.values():
            _kill_group(process.pid, signal.SIGKILL)
            process.wait()
        for thread in self._tees:
            thread.join(DRAIN_SECONDS)
        # Whoever reads the console may take any time, unless somebody wants this process to end.
        patience = time.monotonic() + DRAIN_SECONDS
        for outlet in self._outlets:
            outlet.finish(
                lambda: bool(self._events or self._outcome.stop_signal) and time.monotonic() > patience
            )
        for log in self._outcome.logs.values():
            log.close()


def _go_to_one_place(first: TextIO, second: TextIO) -> bool:
    """Whether two streams are the same terminal, file or pipe."""
    try:
        return os.path.sameopenfile(first.fileno(), second.fileno())
    except (OSError, ValueError):  # one is closed, or no file at all
        return False


def _kill_group(pid: int, signum: int) -> None:
    """Signals a rank that is not reaped yet and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def say(text: str) -> None:
    """Tells the user; a terminal that is gone is not a reason to fail."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
