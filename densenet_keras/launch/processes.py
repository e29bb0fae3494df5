"""What the kernel says of processes; on systems without /proc it says nothing."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import List

STOPPED, TRACED = "T", "t"  # by SIGSTOP or the like; by a debugger


def machine() -> str:
    """Tells hosts and their boots, and containers with processes of their own, apart."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def began(pid: int) -> str:
    """When a process of this host began, in ticks since boot; empty if there is none."""
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else ""


def status(pid: int) -> str:
    """The kernel's letter for what a process of this host does, such as STOPPED; empty if there is none."""
    fields = _stat(pid)
    return fields[0] if fields else ""


def _stat(pid: int) -> List[str]:
    """The fields of /proc/PID/stat from the third on: a name in the second may hold anything."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()
    return []
