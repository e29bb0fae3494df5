"""A request that a run ends: the signals that make it, and what a rank does with it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Iterator, Optional

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
