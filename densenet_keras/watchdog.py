"""What ends a rank from inside: lost progress, a lost launcher.

A rank whose peer died stays in `Session.run` for good; neither time-outs nor closing the session
free it. So the threads here do not ask the training thread, they end the process.
"""

from __future__ import annotations

import abc
import contextlib
import ctypes
import faulthandler
import math
import os
import signal
import statistics
import sys
import threading
import time
from collections import defaultdict, deque
from typing import ContextManager, DefaultDict, Deque, Iterator, List, NamedTuple, Optional

from densenet_keras.errors import EXIT_FAILED, EXIT_HUNG
from densenet_keras.stop import PARENT

POLL_SECONDS = 0.5
TIMES_LEARNED = 20  # a run this many times slower than usual counts as lost
TIMES_KEPT = 101  # of each kind of work
SAYING_SECONDS = 5  # until a process that gives up is gone, whether or not its last words are read
TRAINING, WAITING, IN_CALLBACKS = "training", "waiting for the other ranks", "in the callbacks"
COMPILED_TIMES = 2  # a step takes no longer than one that was compiled as well
GIVES_UP = "this rank gives up"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Watchdog:
    """Ends the process when it, or a rank that it waits for, makes no progress for too long.

    Use as a context manager; before the first `beat` the process may take
    `first_step_timeout_seconds`, afterwards `step_timeout_seconds` or 20 times the median of the
    learned times, whichever is longer.
    """

    def __init__(
        self,
        first_step_timeout_seconds: float,
        step_timeout_seconds: float,
        *,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._step_timeout_seconds = step_timeout_seconds
        self._poll_seconds = poll_seconds
        self._paces: DefaultDict[str, _Pace] = defaultdict(_Pace)
        self._compiled_seconds = 0.0
        self._lock = threading.Lock()
        self._silent_seconds = 0.0
        self._beats = self._step = 0
        self._phases: List[_Phase] = [_Phase("starting", first_step_timeout_seconds)]
        self._done = threading.Event()
        self._others: Optional[Others] = None

    def __enter__(self) -> Watchdog:
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()

    def at(self, step: int) -> None:
        """The global step that has been reached, for others to read."""
        self._step = step

    def beat(self, seconds: Optional[float] = None, compiled: bool = False) -> None:
        """Progress was made; in a phase of a kind of its own, it took as long as since the last one there.

        Args:
            seconds: how long it took, to learn from.
            compiled: that includes a compilation: the next may take as long, and nothing is learned.
        """
        with self._lock:
            self._silent_seconds = 0.0
            self._beats += 1
            phase = self._phases[-1]
            if phase.kind:
                self._learn(phase)
                phase.timeout_seconds = self._limit(phase.kind, self._step_timeout_seconds)
                return
            least = self._step_timeout_seconds
            if seconds is not None and compiled:
                self._compiled_seconds = max(self._compiled_seconds, seconds)
                least = max(least, COMPILED_TIMES * seconds)
            elif seconds is not None:
                self._paces[TRAINING].add(seconds)
            limit, first = self._limit(TRAINING, least), self._phases[0]
            if first.timeout_seconds != limit or first.what != TRAINING:
                self._phases[0] = _Phase(TRAINING, limit)

    @contextlib.contextmanager
    def phase(self, what: str, timeout_seconds: float, kind: str = "") -> Iterator[None]:
        """Inside, only `timeout_seconds` count; `what` completes "no progress while ...".

        Args:
            kind: of work whose usual time is learned, from beat to beat, or as a whole where none comes.
                `timeout_seconds` is then what it may take until the first beat, or 20 times that time.
        """
        with self._lock:
            limit = self._limit(kind, timeout_seconds) if kind else timeout_seconds
            entered = _Phase(what, limit, kind)
            self._silent_seconds = 0.0
            self._phases.append(entered)
        try:
            yield
        finally:
            with self._lock:
                if kind and not entered.beats:
                    self._learn(entered)
                self._silent_seconds = 0.0
                self._phases.remove(entered)
                self._phases[-1].since = time.monotonic()  # a compilation inside teaches nothing outside

    def unlimited(self) -> ContextManager[None]:
        """A phase of code that is not ours, and of output that somebody may read slowly."""
        return self.phase(IN_CALLBACKS, math.inf)

    def waiting(self) -> ContextManager[None]:
        """A phase in which nothing is done but to wait for the other ranks."""
        return self.phase(WAITING, self._phases[0].timeout_seconds)

    def ask(self, others: Others) -> None:
        """From now on `others` is asked whether a rank is lost, or at work so that it is waited for."""
        self._others = others

    def state(self) -> State:
        """What the process is doing."""
        with self._lock:
            phase = self._phases[-1]
            learned = self._paces[TRAINING].times
            once = sum(max(pace.times) for pace in self._paces.values() if pace.times)
            if not (phase.kind or phase.what in (TRAINING, WAITING, IN_CALLBACKS)):
                once += self._compiled_seconds  # it may be at that again
            return State(
                phase=phase.what,
                timeout_seconds=phase.timeout_seconds,
                silent_seconds=self._silent_seconds,
                beats=self._beats,
                step=self._step,
                usual_seconds=statistics.median(learned) if learned else 0.0,
                step_limit_seconds=self._phases[0].timeout_seconds,
                stop_seconds=2 * once,
            )

    def _learn(self, phase: _Phase) -> None:
        now = time.monotonic()
        self._paces[phase.kind].add(now - phase.since)
        phase.since = now
        phase.beats += 1

    def _limit(self, kind: str, least: float) -> float:
        return max(least, TIMES_LEARNED * self._paces[kind].median_above(least / TIMES_LEARNED))

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._done.wait(self._poll_seconds):
            now = time.monotonic()
            with self._lock:
                # A process that was itself stopped (a debugger, a paused container) is not to blame
                # for the time it could not run: no wait counts as more than two.
                self._silent_seconds += min(now - before, 2 * self._poll_seconds)
                phase, silent_seconds = self._phases[-1], self._silent_seconds
            before = now
            others = self._others
            lost = others.lost() if others is not None else ""
            if not lost:
                if silent_seconds <= phase.timeout_seconds:
                    continue
                if others is not None and others.are_at_work():
                    continue
            _give_up(phase, silent_seconds, others, lost)


class State(NamedTuple):
    """What a rank is doing, as others may learn it."""

    phase: str
    timeout_seconds: float
    silent_seconds: float
    beats: int  # steps or batches since the start
    step: int  # global
    usual_seconds: float  # from one step to the next; 0 while that is not known
    step_limit_seconds: float  # that the run may wait for a step
    stop_seconds: float  # that it may take from a request to stop to the end, by what it took so far


class Others(abc.ABC):
    """What a watchdog asks of the other ranks, without waiting for anything."""

    @abc.abstractmethod
    def are_at_work(self) -> bool:
        """Whether one of them does something that may take its time, so that it is waited for."""

    @abc.abstractmethod
    def lost(self) -> str:
        """Why one of them will not come back, so that this rank need not wait; empty if all may."""

    @abc.abstractmethod
    def story(self) -> str:
        """What each of them was doing when it was last heard of, a line each."""

    @abc.abstractmethod
    def leave(self, reason: str) -> None:
        """Tells them why this rank ends."""


class _Pace:
    """How long the last works of a kind took, in seconds."""

    def __init__(self) -> None:
        self.times: Deque[float] = deque(maxlen=TIMES_KEPT)
        self._slowest = 0.0  # no time kept is longer

    def add(self, seconds: float) -> None:
        self.times.append(seconds)
        self._slowest = max(self._slowest, seconds)

    def median_above(self, seconds: float) -> float:
        """The median if it is above `seconds`, else that or less.

        Asked for at every step, where all times are mostly far below: then none of them is looked at.
        """
        if self._slowest <= seconds:
            return self._slowest
        self._slowest = max(self.times)
        return statistics.median(self.times)


class _Phase:
    """What the process is doing and how long it may be silent; compared by identity."""

    def __init__(self, what: str, timeout_seconds: float, kind: str = "") -> None:
        self.what = what
        self.timeout_seconds = timeout_seconds
        self.kind = kind
        self.since = time.monotonic()  # of its last beat
        self.beats = 0


def _give_up(phase: _Phase, silent_seconds: float, others: Optional[Others], lost: str) -> None:
    """Says what hung and where, and ends the process."""
    story = others.story() if others is not None else ""
    reason = lost or (
        f"no progress for {silent_seconds:.0f} s while {phase.what}, {phase.timeout_seconds:.0f} s "
        "are allowed: a rank died or waits for data, or the step takes longer than "
        "--step_timeout_seconds or --first_step_timeout_seconds"
    )
    # Where nobody reads what is written, the kernel ends this process: the stacks are written with the
    # interpreter's lock held.
    signal.alarm(SAYING_SECONDS)
    try:
        if others is not None:
            others.leave(reason)
        # Straight to the descriptors: a thread that hangs may hold the lock of sys.stderr. The reason
        # comes last, where the end of the log is looked at.
        faulthandler.dump_traceback(file=2, all_threads=True)
        os.write(2, f"{story}{reason}; {GIVES_UP}\n".encode())
    finally:
        os._exit(EXIT_HUNG if PARENT in os.environ else EXIT_FAILED)


def watch_parent() -> None:
    """Ends this process when the launcher that started it is gone; nothing without a launcher."""
    text = os.environ.get(PARENT, "")
    if not text.isdigit():
        return
    parent = int(text)
    if sys.platform == "linux":
        # At once and without help from this interpreter; the thread below is for where it fails.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=watch, name="parent watch", daemon=True).start()
