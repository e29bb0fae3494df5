"""One run at a time in a run folder: a lock that its holder's death releases.

The kernel's lock (flock) is what counts; Linux carries it over NFS too. What the file says names the
holder, and guards where a file system knows no locks, or only those of its own host.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from typing import Any, Dict, Iterator

from densenet_keras.errors import UsageError
from densenet_keras.launch import processes

NAME = ".lock"
PATIENCE_SECONDS = 3.0  # a run that was killed a moment ago is still ending
BEAT_SECONDS = 2.0
SILENT_BEATS = 4  # a holder on another host that has not written for so many is gone
JOIN_SECONDS = 5.0
POLL_SECONDS = 0.1


@contextlib.contextmanager
def held(log_dir: str) -> Iterator[int]:
    """Holds the folder while the body runs; gives the descriptor whose copies in ranks hold it as well.

    Raises:
        UsageError: another run holds it, by host and process; or the folder cannot be written.
    """
    path = os.path.join(log_dir, NAME)
    try:
        os.makedirs(log_dir, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(
            f"--log_dir {log_dir}: cannot be written ({error.strerror}); choose a folder that you may "
            "write to"
        ) from error
    done = threading.Event()
    me = {
        "host": socket.gethostname(),
        "boot": processes.machine(),
        "pid": os.getpid(),
        "began": processes.began(os.getpid()),
    }
    beating = threading.Thread(target=_beat, args=(descriptor, me, done), name="lock", daemon=True)
    try:
        _wait_for(descriptor, log_dir)
        try:
            _write(descriptor, me, 0)
        except OSError as error:
            raise UsageError(
                f"--log_dir {log_dir}: cannot be written ({error.strerror}); make room there"
            ) from error
        beating.start()
        yield descriptor
    finally:
        done.set()
        if beating.ident is not None:
            beating.join(JOIN_SECONDS)
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
        if not beating.is_alive():  # one that hangs in a lost file system may still write to this number
            os.close(descriptor)


def _wait_for(descriptor: int, log_dir: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        locked = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            locked = False
        except OSError:  # no locks here: what is written decides
            pass
        holder = _read(descriptor)
        if locked and not _lives(descriptor, holder):
            return
        if time.monotonic() > deadline:
            who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
            raise UsageError(
                f"--log_dir {log_dir}: {who} is at work in it; wait for it to end or stop it, or choose "
                "another --log_dir"
            )
        time.sleep(POLL_SECONDS)


def _lives(descriptor: int, holder: Dict[str, Any]) -> bool:
    """Whether the holder that the file names still runs, although the kernel knows of no lock."""
    if not holder:
        return False
    if holder["boot"] == processes.machine():
        return processes.began(holder["pid"]) == holder["began"]
    for _ in range(SILENT_BEATS):
        time.sleep(BEAT_SECONDS)
        if _read(descriptor).get("beat") != holder["beat"]:
            return True
    return False


def _beat(descriptor: int, me: Dict[str, Any], done: threading.Event) -> None:
    beat = 0
    while not done.wait(BEAT_SECONDS):
        beat += 1
        with contextlib.suppress(OSError):
            _write(descriptor, me, beat)


def _write(descriptor: int, me: Dict[str, Any], beat: int) -> None:
    """In place and always as long, so that a full disk does not matter after the first time."""
    os.pwrite(descriptor, json.dumps({**me, "beat": f"{beat:012d}"}).encode(), 0)


def _read(descriptor: int) -> Dict[str, Any]:
    """What the holder wrote; empty if nobody did, or not whole."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        values = json.loads(os.pread(descriptor, 4096, 0).decode())
        return {name: values[name] for name in ("host", "boot", "pid", "began", "beat")}
    return {}
