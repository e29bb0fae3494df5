"""What ends a rank from inside: a request to stop, lost progress, a lost launcher.

A rank whose peer died stays in `Session.run` for good; neither time-outs nor closing the session
free it. So the threads here do not ask the training thread, they end the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import statistics
import sys
import threading
import time
from collections import deque
from typing import Deque, Iterator, List, Optional

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# In the environment of ranks that a launcher started:
PARENT = "DENSENET_KERAS_PARENT"  # process id of the launcher
TERMINAL = "DENSENET_KERAS_TERMINAL"  # 1 if what a rank writes to stderr reaches a terminal, else 0
POLL_SECONDS = 0.5
TIMES_LEARNED = 20  # a run this many times slower than usual counts as lost
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class StopFlag:
    """A request to stop, made by a signal or by another rank.

    Until `let_finish` is called there is nothing to save, and the first signal ends the process: nobody
    shall wait for a graph to be built and compiled that will not be used.

    Attributes:
        signal: number of the signal that asked, 0 while nobody did.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._patient = False
        self._received = False

    @property
    def is_set(self) -> bool:
        """Whether the run shall stop."""
        return self.signal != 0

    def let_finish(self) -> None:
        """From now on there is work to save: a first signal asks, only the second ends the process."""
        self._patient = True

    def request(self, signum: int) -> None:
        """Asks to stop as if signal `signum` had come; the first request decides the exit code."""
        self.signal = self.signal or signum

    @contextlib.contextmanager
    def handling_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM request a stop or end the process; the second one received ends it at once.

        Only in the main thread, which must not sit in TensorFlow: handlers would not run there.
        """

        def handle(signum: int, frame: object) -> None:
            if self._received or not self._patient:
                os._exit(128 + signum)
            self._received = True
            self.request(signum)
            if PARENT not in os.environ:  # else the launcher says it, once for all ranks
                os.write(2, b"stopping after the current session.run; again to stop at once\n")

        previous = {signum: signal.signal(signum, handle) for signum in SIGNALS}
        # The launcher starts ranks with these blocked, so that none is lost before this line.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)


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
        self._phases: List[_Phase] = [_Phase("starting", first_step_timeout_seconds)]
        self._done = threading.Event()

    def __enter__(self) -> Watchdog:
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()

    def beat(self, seconds: Optional[float] = None) -> None:
        """Progress was made; `seconds` is how long it took, to learn from (without compilation)."""
        with self._lock:
            self._silent_seconds = 0.0
            if seconds is not None:
                self._learned_seconds.append(seconds)
            usual = statistics.median(self._learned_seconds) if self._learned_seconds else 0.0
            timeout_seconds = max(self._step_timeout_seconds, TIMES_LEARNED * usual)
            self._phases[0] = _Phase("training", timeout_seconds)

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
            if silent_seconds > phase.timeout_seconds:
                _give_up(phase, silent_seconds)


class _Phase:
    """What the process is doing and how long it may be silent; compared by identity."""

    def __init__(self, what: str, timeout_seconds: float) -> None:
        self.what = what
        self.timeout_seconds = timeout_seconds


def _give_up(phase: _Phase, silent_seconds: float) -> None:
    """Says what hung and where, and ends the process."""
    text = (
        f"no progress for {silent_seconds:.0f} s while {phase.what}, {phase.timeout_seconds:.0f} s are "
        "allowed: a rank died or waits for data, or the step takes longer than "
        "--step_timeout_seconds or --first_step_timeout_seconds; this rank gives up\n"
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
