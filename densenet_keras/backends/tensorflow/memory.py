"""Freed memory kept for the next step instead of given back to the system; without TensorFlow.

A step frees its feature maps and takes as much again. glibc returns blocks of that size to the system, which
hands them out anew page by page, each filled with zeros first.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Mapping, MutableMapping

# Parameters of mallopt in <malloc.h>, a stable part of glibc's interface.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
# Of TensorFlow: the allocator that it has for GPUs, which keeps blocks of like sizes together, for the host.
_POOLS = "TF_CPU_ALLOCATOR_USE_BFC"
_OWN_SETTINGS = ("GLIBC_TUNABLES", "MALLOC_")
_PAD_BYTES = 64 << 20  # taken from the system at a time
_NEVER_TRIM = (1 << 31) - 1  # mallopt takes an int


def keep_freed_memory(environ: Mapping[str, str]) -> bool:
    """Tells the C library of this process to keep what is freed; whether it was told.

    It is not where `environ` has settings for it already, or where another library than glibc (or one
    loaded in its place) has no `mallopt`.
    """
    if any(name.startswith(_OWN_SETTINGS) for name in environ):
        return False
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        # Without mmap: its threshold cannot be raised above 32 MB, and feature maps are larger.
        settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER_TRIM, _TOP_PAD: _PAD_BYTES}
        return all(mallopt(name, value) == 1 for name, value in settings.items())
    return False


def use_pools(environ: MutableMapping[str, str]) -> None:
    """Sets in `environ` that TensorFlow takes memory from pools, unless it says something about that already.

    Recomputing takes and frees blocks of many sizes: in C's heap half of the peak is holes between them.
    Before TensorFlow is imported.
    """
    environ.setdefault(_POOLS, "true")
