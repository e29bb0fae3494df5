"""Ranks on one host talk over the loopback interface, and nobody else hears them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import Sequence, Set

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
SO_BINDTODEVICE = 25  # asm-generic/socket.h; Python 3.7 has no name for it


def keep_from_proxy(addresses: Sequence[str]) -> None:
    """Tells gRPC not to ask a proxy (http_proxy, https_proxy) for the way to other ranks.

    The one in TensorFlow 1.15 reads no_proxy alone, not no_grpc_proxy as later ones do.
    """
    before = os.environ.get("no_proxy", "")  # noqa: SIM112
    hosts = sorted({address.rpartition(":")[0] for address in addresses})
    os.environ["no_proxy"] = ",".join([*filter(None, [before]), *hosts])  # noqa: SIM112


def hide(addresses: Sequence[str], rank: int) -> None:
    """Binds this process's listening socket to the loopback device if all ranks are on this host.

    TensorFlow and NCCL listen on all interfaces. Linux lets a process bind its own socket since 5.7, and
    before only with CAP_NET_RAW: then nothing changes.
    """
    if {address.rpartition(":")[0] for address in addresses} - set(_LOOPBACK):
        return
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    for listening in _listening_at(int(addresses[rank].rpartition(":")[2])):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(listening)) as handle:
            handle.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"lo\0")


def _listening_at(port: int) -> Set[int]:
    """Descriptors of this process that accept connections at `port`."""
    found = set()
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as handle:
            if handle.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            if handle.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and handle.getsockname()[1] == port:
                found.add(int(name))
    return found
