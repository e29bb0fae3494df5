"""Whether this machine has a CUDA driver, and asking TensorFlow for GPUs without its complaint if not."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Iterator, List

import tensorflow as tf

# TensorFlow initialises CUDA once in a process, whether there is any or not, and calls it an error that
# there is none; its log level would hide other errors as well.
_COMPLAINT = b"failed call to cuInit"
_CUDA_ERROR_STUB_LIBRARY = 34
_CUDA_ERROR_NO_DEVICE = 100


def gpu_count() -> int:
    """GPUs that TensorFlow sees; none of their memory is taken.

    Where a driver is installed and does not start, what TensorFlow says about that is shown.
    """
    quiet = contextlib.nullcontext() if _is_expected() else without_lines(_COMPLAINT)
    with quiet:
        return len(tf.config.experimental.list_physical_devices("GPU"))


def _is_expected() -> bool:
    """Whether somebody who looks for a GPU here would expect to find one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return driver.cuInit(0) not in (_CUDA_ERROR_STUB_LIBRARY, _CUDA_ERROR_NO_DEVICE)


@contextlib.contextmanager
def without_lines(fragment: bytes) -> Iterator[None]:
    """Drops the lines that contain `fragment` of what native code writes to stderr in the body.

    Other lines follow after it. The body must not write more than a pipe holds, 64 KiB.
    """
    try:
        shown = os.dup(2)
    except OSError:  # closed: there is nothing to keep clean
        yield
        return
    receiver, sender = os.pipe()
    os.dup2(sender, 2)
    os.close(sender)
    try:
        yield
    finally:
        os.dup2(shown, 2)  # closes the last sender too
        os.close(shown)
        with open(receiver, "rb") as lines:
            kept: List[bytes] = [line for line in lines if fragment not in line]
        if kept:
            os.write(2, b"".join(kept))
