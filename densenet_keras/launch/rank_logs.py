"""One log file for each rank: rank_logs/rank_R.log in the run folder, appended to by every start."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from typing import IO, BinaryIO, List

from densenet_keras.launch.outlet import Outlet

FOLDER = "rank_logs"
TAIL_LINES = 25
TAIL_BYTES = 1 << 20  # what is read of a log to explain a failure
READ_BYTES = 1 << 16
_STACK = re.compile(r"(Current thread|Thread) 0x[0-9a-f]+ \(most recent call first\):")


def path_of(log_dir: str, rank: int) -> str:
    """The log file of one rank."""
    return os.path.join(log_dir, FOLDER, f"rank_{rank}.log")


class RankLog:
    """The log of one rank from one start on; what earlier starts wrote stays before it."""

    def __init__(self, log_dir: str, rank: int) -> None:
        self.path = path_of(log_dir, rank)
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self.file: BinaryIO = open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed by close)
        self._start = os.path.getsize(self.path)
        self.file.write(time.strftime("=== started %Y-%m-%d %H:%M:%S\n").encode())

    def close(self) -> None:
        """Closes the file; `text` and `tail` still work."""
        self.file.close()

    def text(self) -> str:
        """What this start wrote, the last megabyte of it, as clean lines."""
        return self.text_from(self._start)

    def text_from(self, start: int) -> str:
        """As `text`, from byte `start` of the file on."""
        with open(self.path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - TAIL_BYTES))
            return "\n".join(_clean(line) for line in file.read().split(b"\n"))

    def tail(self, lines: int = TAIL_LINES) -> List[str]:
        """The last lines that say something; stacks of threads do not."""
        said = [line for line in self.text().split("\n")[1:] if line.strip()]
        return _without_stacks(said)[-lines:]


def _without_stacks(lines: List[str]) -> List[str]:
    """`lines` without what faulthandler wrote: a head for each thread, and its frames."""
    kept: List[str] = []
    inside = False
    for line in lines:
        inside = bool(_STACK.match(line)) or (inside and line.startswith("  "))
        if not inside:
            kept.append(line)
    return kept


def _clean(line: bytes) -> str:
    """A line as a terminal would show it in the end: progress bars overwrite themselves."""
    text = line.decode("utf-8", errors="replace").rstrip("\r").rpartition("\r")[2]
    return "".join(c for c in text if c.isprintable() or c == "\t")


class FinalLines:
    """Writes a stream of bytes to a file, of each line only what the last carriage return left.

    A progress bar that moves ten times a second would otherwise fill the log.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._line = b""

    def write(self, data: bytes) -> None:
        """Takes more of the stream; whole lines go to the file at once."""
        lines = (self._line + data).split(b"\n")
        *whole, self._line = [self._kept(line) for line in lines]
        if whole:
            self._file.write(b"\n".join(whole) + b"\n")

    def finish(self) -> None:
        """The stream has ended; writes the line that had no end."""
        if self._line:
            self._file.write(self._line.rstrip(b"\r") + b"\n")
            self._line = b""

    @staticmethod
    def _kept(line: bytes) -> bytes:
        # A carriage return at the very end may be half of a line end, or its text may be all there is.
        body = line.rstrip(b"\r")
        return body.rpartition(b"\r")[2] + line[len(body) :]


def tee(source: IO[bytes], log: FinalLines, console: Outlet) -> threading.Thread:
    """Starts a thread that copies `source` to the log and, byte for byte, to the console, to its end."""

    def copy() -> None:
        with source:
            for data in iter(lambda: os.read(source.fileno(), READ_BYTES), b""):
                # A process that writes to a pipe nobody reads stands still: not even a full disk may end
                # this loop.
                with contextlib.suppress(OSError):
                    log.write(data)
                console.put(data)
        with contextlib.suppress(OSError):
            log.finish()

    thread = threading.Thread(target=copy, name="tee", daemon=True)
    thread.start()
    return thread
