"""What the launcher shows, written by a thread of its own: a reader that pauses holds up nobody.

A pipe that is not read, a terminal after ctrl-S, less: whoever writes to them stands still. A rank must
not, so what it says is taken from it at once, kept for the reader up to a limit, and left out beyond it.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from typing import Callable, Deque

KEPT_BYTES = 1 << 20
POLL_SECONDS = 0.1


class Outlet:
    """A stream of bytes to a descriptor of this process."""

    def __init__(self, descriptor: int, where_all_is: str) -> None:
        """
        Args:
            where_all_is: a file that holds what is left out, too.
        """
        self._descriptor, self._where_all_is = descriptor, where_all_is
        self._waiting: Deque[bytes] = deque()
        self._kept_bytes = self._left_out_bytes = 0
        self._ended = self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write_all, name="console", daemon=True)
        self._thread.start()

    def put(self, data: bytes) -> None:
        """Shows `data` when the reader is ready; returns at once."""
        with self._changed:
            if self._is_closed:
                return
            # Once something was left out, more is only when there is room for what comes after the note.
            limit = KEPT_BYTES // 2 if self._left_out_bytes else KEPT_BYTES
            if self._kept_bytes + len(data) > limit and self._waiting:
                self._left_out_bytes += len(data)
                return
            self._note_what_is_left_out()
            self._keep(data)

    def finish(self, is_enough: Callable[[], bool]) -> None:
        """Waits until all is shown, or `is_enough()`, which is asked again and again."""
        with self._changed:
            self._note_what_is_left_out()
            self._ended = True
            self._changed.notify()
        while self._thread.is_alive() and not is_enough():
            self._thread.join(POLL_SECONDS)

    def _keep(self, data: bytes) -> None:
        self._waiting.append(data)
        self._kept_bytes += len(data)
        self._changed.notify()

    def _note_what_is_left_out(self) -> None:
        count, self._left_out_bytes = self._left_out_bytes, 0
        if count:
            self._keep(
                f"\n... {count} bytes are not shown: whoever reads this paused for too long; "
                f"{self._where_all_is} holds them\n".encode()
            )

    def _write_all(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ended:
                    self._changed.wait()
                if not self._waiting:
                    return
                data = self._waiting.popleft()
                self._kept_bytes -= len(data)
            if not self._write(memoryview(data)):
                with self._changed:
                    self._is_closed = True
                    self._waiting.clear()
                    return

    def _write(self, data: memoryview) -> bool:
        """Whether there still is a reader. Past sys.stdout: its lock would be held where this waits."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # somebody made the terminal non-blocking
                select.select([], [self._descriptor], [])
            except OSError:
                return False
        return True
