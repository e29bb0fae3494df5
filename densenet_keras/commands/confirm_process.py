"""One command of `confirm` while it runs: watched, asked to stop, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import Any, Dict, Iterator, List, Mapping

from densenet_keras.backends.confirmation import Backing, How

_POLL_SECONDS = 0.05
_SAMPLE_SECONDS = 1.0
_GRACE_SECONDS = 120.0

# Not by -m, which imports from the current folder first.
_COMMAND = [
    sys.executable, "-c",
    "import sys; del sys.path[0]; from densenet_keras.commands.start import tool; "
    "sys.exit(tool(sys.argv[1:]))",
]  # fmt: skip


class Process:
    """One command while it runs."""

    def __init__(
        self, folder: str, arguments: List[str], environment: Mapping[str, str], backing: Backing, how: How
    ) -> None:
        self._output = os.path.join(folder, "output.log")
        self._arguments, self._environment = arguments, environment
        self._sample, self._how = backing.sample if how.observed else None, how
        self._samples: List[Dict[str, Any]] = []
        self._sampled_at = 0.0

    def wait(self, metrics_path: str) -> Dict[str, Any]:
        """Starts it, waits for its end, and returns what `Ran` tells of it."""
        self._observe()
        begun, first_line = time.monotonic(), None
        with contextlib.ExitStack() as stack:
            with _uninterrupted():
                process = self._start()
                stack.enter_context(_stopped_in_the_end(process))
            waits_to_stop = bool(self._how.stop_at)
            while process.poll() is None:
                time.sleep(_POLL_SECONDS)
                if first_line is None and os.path.exists(metrics_path) and os.path.getsize(metrics_path):
                    first_line = time.monotonic() - begun
                if waits_to_stop and self._has_said(self._how.stop_at):
                    waits_to_stop = False
                    process.send_signal(signal.SIGTERM)
                self._observe()
        return {
            "command": ["python", "-m", "densenet_keras", *self._arguments],
            "code": process.returncode,
            "seconds": time.monotonic() - begun,
            "first_line_seconds": first_line,
            "samples": self._samples,
        }

    def _start(self) -> subprocess.Popen[bytes]:
        with open(self._output, "wb") as output:
            return subprocess.Popen(
                [*_COMMAND, *self._arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=dict(self._environment), start_new_session=True,
            )  # fmt: skip

    def _has_said(self, text: str) -> bool:
        with open(self._output, "rb") as file:
            return text.encode() in file.read()

    def _observe(self) -> None:
        if self._sample is None or time.monotonic() - self._sampled_at < _SAMPLE_SECONDS:
            return
        self._samples.append(self._sample())
        self._sampled_at = time.monotonic()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """ctrl-C and SIGTERM come after the body: a process that is just being started would be left behind.

    Blocking them would not do: another thread, such as TensorFlow's, takes them then.
    """
    came: List[int] = []
    own = [s for s in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(s))]
    previous = {signum: signal.signal(signum, lambda signum, _: came.append(signum)) for signum in own}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
        for number in came[:1]:
            os.kill(os.getpid(), number)


@contextlib.contextmanager
def _stopped_in_the_end(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """If the body is left by ctrl-C, so is the process, in the time that saving may take."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
