"""Reads TensorFlow checkpoints, and tells damage from a disk that could not be read just now."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import struct
import tempfile
from typing import Any, Iterator, Optional, Tuple

import tensorflow as tf
from tensorflow.python import pywrap_tensorflow

from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import manifest
from densenet_keras.errors import RunError, UsageError

# TensorFlow looks for a checkpoint by pattern (Env::GetMatchingPaths), so that these in the name of a
# folder make it find nothing, or another checkpoint.
_PATTERN = re.compile(r"[*?\[\]\\]")

# tensorflow/core/lib/io/format.h: two block handles of two varints each, filled up to 40 bytes, and the
# magic number. TensorFlow 1.15 believes the handles and asks for as much memory as they say.
_FOOTER_BYTES, _BLOCK_TRAILER_BYTES = 48, 5
_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)

GLOBAL_STEP = "global_step"
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # tf.train.Checkpoint and Keras' save_weights(save_format="tf")

Reader = Any  # pywrap_tensorflow.CheckpointReader, which has no types


class Damaged(RunError):
    """A checkpoint whose bytes were read and are wrong.

    Attributes:
        reason: what is wrong with them.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"checkpoint {path} cannot be read, it is damaged or incomplete ({reason}); give another"
        )
        self.reason = reason


class Gone(RunError):
    """A checkpoint whose files do not exist any more: the run that wrote it goes on and keeps few."""


@contextlib.contextmanager
def reading(path: str) -> Iterator[Reader]:
    """A reader of checkpoint `path`, for as long as the body runs.

    Raises:
        Damaged: its bytes are wrong.
        Gone: its files have been deleted.
        RunError: they could not be read, which says nothing about them: no permission, a disk that
            fails, too many open files.
    """
    try:
        _check_manifest(path, contents=False)
        _check_index(path)
        with _plain_path(path) as plain:
            yield pywrap_tensorflow.NewCheckpointReader(plain)
    except OSError as error:
        raise _unread(path, error.strerror or str(error)) from error
    except _WrongBytes as error:
        raise Damaged(path, str(error)) from error
    except (tf.errors.OpError, ValueError) as error:
        _check_readable(path)
        if not _blames_the_bytes(error):
            raise _unread(path, first_line(error)) from error
        raise Damaged(path, first_line(error)) from error


def check_every_byte(path: str) -> Optional[int]:
    """Reads all of checkpoint `path`, its checksums compared; raises as `reading` does.

    They are those of its manifest, or TensorFlow's own where it has none.

    Returns:
        The global step in it; None if it holds none.
    """
    step = None
    with reading(path) as reader:
        try:
            has_manifest = _check_manifest(path, contents=True, tolerant=False)
        except manifest.BrokenManifest as error:
            # It says where in the data the run stands.
            raise _WrongBytes(f"{error}; delete it to go on without") from error
        names = reader.get_variable_to_shape_map()
        for name in {GLOBAL_STEP} & set(names) if has_manifest else names:
            value = reader.get_tensor(name)
            if name == GLOBAL_STEP:
                step = int(value)
    return step


def refuse_object_based(path: str, reader: Reader) -> None:
    """Raises UsageError if `path` names its variables by Python attributes instead of by their names."""
    if reader.has_tensor(OBJECT_GRAPH):
        raise UsageError(
            f"checkpoint {path} is an object-based one, of tf.train.Checkpoint or Keras' "
            'save_weights(save_format="tf"): its variables are named by the Python objects that held them. '
            "Load it with the program that wrote it and save it with tf.compat.v1.train.Saver, or as .h5"
        )


def first_line(error: Exception) -> str:
    """What TensorFlow says, without the trace of the node."""
    message = getattr(error, "message", None) or str(error)
    return message.splitlines()[0] if message else type(error).__name__


def _unread(path: str, reason: str) -> RunError:
    if checkpoint_files.missing_files(path):
        return Gone(f"checkpoint {path} does not exist any more: it has been deleted or moved meanwhile")
    return RunError(
        f"checkpoint {path} could not be read: {reason}. Nothing was changed; see to permissions, disk and "
        "limits (ulimit -n), then run the same command again"
    )


def _check_readable(path: str) -> None:
    """Raises OSError where the files cannot be opened and read from end to end.

    TensorFlow reports some of that as it reports damage.
    """
    try:
        for file in checkpoint_files.files_of(path):
            with open(file, "rb") as opened:
                while opened.read(1 << 24):
                    pass
    except OSError as error:
        raise _unread(path, error.strerror or str(error)) from error


def _blames_the_bytes(error: Exception) -> bool:
    if isinstance(error, (tf.errors.DataLossError, tf.errors.OutOfRangeError, ValueError)):
        return True
    if isinstance(error, (tf.errors.InvalidArgumentError, tf.errors.InternalError)):
        return "Failed to get matching files" not in str(error)  # too many open files, no permission
    return False


class _WrongBytes(Exception):
    """What `_check_index` or `_check_manifest` found."""


def _check_manifest(path: str, contents: bool, tolerant: bool = True) -> bool:
    """Compares the files with the manifest; whether there is one. Unless `tolerant`, a broken one raises."""
    found = manifest.readable(path) if tolerant else manifest.read(path)
    if found is None:
        return False
    wrong = manifest.difference(path, found, contents)
    if wrong:
        raise _WrongBytes(f"{wrong}; if that was meant, delete {path}{manifest.ENDING}")
    return True


def _check_index(path: str) -> None:
    """Refuses an index whose end points outside the file."""
    with open(path + ".index", "rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < _FOOTER_BYTES:
            raise _WrongBytes(f"its index has {size} bytes, less than an empty one")
        file.seek(size - _FOOTER_BYTES)
        footer = file.read(_FOOTER_BYTES)
    if footer[-8:] != _MAGIC:
        raise _WrongBytes("its index does not end as one of TensorFlow's does")
    position = 0
    for _ in range(2):
        offset, position = _varint(footer, position)
        length, position = _varint(footer, position)
        if offset + length + _BLOCK_TRAILER_BYTES > size - _FOOTER_BYTES:
            raise _WrongBytes("the end of its index points outside the file")


def _varint(data: bytes, position: int) -> Tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[position]
        value |= (byte & 127) << shift
        shift, position = shift + 7, position + 1
        if byte < 128:
            return value, position
    raise _WrongBytes("the end of its index holds no numbers")


@contextlib.contextmanager
def _plain_path(path: str) -> Iterator[str]:
    """A prefix that leads to checkpoint `path` and that TensorFlow does not take for a pattern."""
    if not _PATTERN.search(path):
        yield path
        return
    folder = tempfile.mkdtemp(prefix="densenet-checkpoint-", dir=_plain_temporary_folder())
    prefix = os.path.join(folder, "linked")
    try:
        for file in checkpoint_files.files_of(path):
            ending = os.path.basename(file)[len(os.path.basename(path)) :]
            os.symlink(os.path.abspath(file), prefix + ending)
        yield prefix
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _plain_temporary_folder() -> str:
    usual = tempfile.gettempdir()
    return "/tmp" if _PATTERN.search(usual) else usual
