"""What ends a rank from inside: a request to stop, lost progress, a lost launcher.

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
from collections import deque
from typing import ContextManager, Deque, Iterator, List, NamedTuple, Optional

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A lost terminal is a reason to save and leave as a request to terminate is.
ASKED_BY = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}
# `timeout`, systemd, Slurm and killall signal several processes of a run, some of them twice: what
# follows this soon is the same request. Fingers at a terminal are slower than that, but not much.
SAME_REQUEST_SECONDS = 1.0
SAME_KEY_SECONDS = 0.2
NOTHING_TO_SAVE_SECONDS = 1.0
# In the environment of ranks that a launcher started:
PARENT = "DENSENET_KERAS_PARENT"  # process id of the launcher
TERMINAL = "DENSENET_KERAS_TERMINAL"  # 1 if what a rank writes to stderr reaches a terminal, else 0
POLL_SECONDS = 0.5
TIMES_LEARNED = 20  # a run this many times slower than usual counts as lost
COMPILED_TIMES = 2  # a step takes no longer than one that was compiled as well
GIVES_UP = "this rank gives up"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def is_repeated(signum: int, seconds: float) -> bool:
    """Whether a signal that comes `seconds` after a first one is the same request, not a wish to hurry."""
    if signum == signal.SIGHUP:  # the shell and the kernel both send it
        return True
    with contextlib.suppress(OSError):
        if signum == signal.SIGINT and os.isatty(2):
            return seconds < SAME_KEY_SECONDS
    return seconds < SAME_REQUEST_SECONDS


class StopFlag:
    """A request to stop, made by a signal or by another rank.

    Until `let_finish` is called there is nothing to save, and a signal ends the process soon: nobody
    shall wait for a graph to be built and compiled that will not be used. Soon and not at once, because
    other ranks may have finished a first step that this one is about to finish.

    Attributes:
        signal: number of the signal that asked, 0 while nobody did.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._patient = False
        self._received_at: Optional[float] = None

    @property
    def is_set(self) -> bool:
        """Whether the run shall stop."""
        return self.signal != 0

    def let_finish(self) -> None:
        """From now on there is work to save, and the process is not ended before it is."""
        self._patient = True

    def request(self, signum: int) -> None:
        """Asks to stop as if signal `signum` had come; the first request decides the exit code."""
        self.signal = self.signal or signum

    def leave_if_idle(self) -> None:
        """Ends the process if a signal has come and nothing is there to save; to be called now and then."""
        if self._patient or self._received_at is None:
            return
        if time.monotonic() - self._received_at > NOTHING_TO_SAVE_SECONDS:
            os._exit(128 + self.signal)

    @contextlib.contextmanager
    def handling_signals(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGHUP request a stop.

        Under a launcher repetitions are ignored: it kills the ranks that shall leave at once. Without
        one, a second signal does so unless it is the first one repeated. SIGHUP stays ignored under nohup.

        Only in the main thread, which must not sit in TensorFlow: handlers would not run there.
        """
        launched = PARENT in os.environ

        def handle(signum: int, frame: object) -> None:
            now = time.monotonic()
            if self._received_at is not None:
                if not launched and not is_repeated(signum, now - self._received_at):
                    os._exit(128 + ASKED_BY[signal.Signals(signum)])
                return
            self._received_at = now
            self.request(ASKED_BY[signal.Signals(signum)])
            if not launched:  # else the launcher says it, once for all ranks
                _say_or_fall_silent(b"stopping after the current session.run; again to stop at once\n")

        handled = [s for s in SIGNALS if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN]
        previous = {signum: signal.signal(signum, handle) for signum in handled}
        # The launcher starts ranks with these blocked, so that none is lost before this line.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)


def _say_or_fall_silent(line: bytes) -> None:
    """Writes to stderr. If the terminal is gone, standard streams lead nowhere from now on.

    Otherwise the next line of the log would end the run before it has saved.
    """
    try:
        os.write(2, line)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
        os.close(nowhere)


class Watchdog:
    """Ends the process with exit code 1 when it makes no progress for too long.

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
        self._learned_seconds: Deque[float] = deque(maxlen=101)
        self._lock = threading.Lock()
        self._silent_seconds = 0.0
        self._beats = 0
        self._phases: List[_Phase] = [_Phase("starting", first_step_timeout_seconds)]
        self._done = threading.Event()
        self._others: Optional[Others] = None

    def __enter__(self) -> Watchdog:
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()

    def beat(self, seconds: Optional[float] = None, compiled: bool = False) -> None:
        """Progress was made.

        Args:
            seconds: how long it took, to learn from.
            compiled: that includes a compilation: the next may take as long, and nothing is learned.
        """
        with self._lock:
            self._silent_seconds = 0.0
            self._beats += 1
            expected = 0.0
            if seconds is not None and compiled:
                expected = COMPILED_TIMES * seconds
            elif seconds is not None:
                self._learned_seconds.append(seconds)
            if self._learned_seconds:
                expected = max(expected, TIMES_LEARNED * statistics.median(self._learned_seconds))
            self._phases[0] = _Phase("training", max(self._step_timeout_seconds, expected))

    @contextlib.contextmanager
    def phase(self, what: str, timeout_seconds: float) -> Iterator[None]:
        """Inside, only `timeout_seconds` count; `what` completes "no progress while ..."."""
        entered = _Phase(what, timeout_seconds)
        with self._lock:
            self._silent_seconds = 0.0
            self._phases.append(entered)
        try:
            yield
        finally:
            with self._lock:
                self._silent_seconds = 0.0
                self._phases.remove(entered)

    def unlimited(self) -> ContextManager[None]:
        """A phase of code that is not ours, and of output that somebody may read slowly."""
        return self.phase("in the callbacks", math.inf)

    def ask(self, others: Others) -> None:
        """From now on `others` is asked, before the process is ended, whether another rank is at work."""
        self._others = others

    def state(self) -> State:
        """What the process is doing."""
        with self._lock:
            phase = self._phases[-1]
            usual = statistics.median(self._learned_seconds) if self._learned_seconds else 0.0
            return State(phase.what, phase.timeout_seconds, self._silent_seconds, self._beats, usual)

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
            if silent_seconds <= phase.timeout_seconds:
                continue
            if self._others is None or not self._others.are_at_work():
                _give_up(phase, silent_seconds, self._others)


class State(NamedTuple):
    """What a rank is doing, as others may learn it."""

    phase: str
    timeout_seconds: float
    silent_seconds: float
    beats: int  # steps or batches since the start
    usual_seconds: float  # from one to the next; 0 while that is not known


class Others(abc.ABC):
    """What a watchdog asks of the other ranks, without waiting for anything."""

    @abc.abstractmethod
    def are_at_work(self) -> bool:
        """Whether one of them does something that may take its time, so that it is waited for."""

    @abc.abstractmethod
    def story(self) -> str:
        """What each of them was doing when it was last heard of, a line each."""


class _Phase:
    """What the process is doing and how long it may be silent; compared by identity."""

    def __init__(self, what: str, timeout_seconds: float) -> None:
        self.what = what
        self.timeout_seconds = timeout_seconds


def _give_up(phase: _Phase, silent_seconds: float, others: Optional[Others]) -> None:
    """Says what hung and where, and ends the process."""
    story = others.story() if others is not None else ""
    text = (
        f"{story}no progress for {silent_seconds:.0f} s while {phase.what}, {phase.timeout_seconds:.0f} s "
        "are allowed: a rank died or waits for data, or the step takes longer than "
        f"--step_timeout_seconds or --first_step_timeout_seconds; {GIVES_UP}\n"
    )
    try:
        # Straight to the descriptors: a thread that hangs may hold the lock of sys.stderr. The reason
        # comes last, where the end of the log is looked at.
        faulthandler.dump_traceback(file=2, all_threads=True)
        os.write(2, text.encode())
    finally:
        os._exit(1)


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
