"""Files that are written whole or not at all: all but logs, which grow, and what TensorFlow writes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import tempfile
from typing import IO, Any, Iterator, Optional

from densenet_keras.errors import RunError

# A file system without fsync (some FUSE and object-store mounts) says one of these.
_NO_FSYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EROFS)


@contextlib.contextmanager
def whole_file(path: str, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write that takes the name `path` when the body ends, and leaves no trace if it fails.

    What stood under the name stays until then. Its bytes have reached the disk before it has the name,
    and others may read it.

    Args:
        mode: "w" for UTF-8 text, "wb" for bytes.

    Raises:
        OSError: the folder cannot be made or written, or the disk is full.
    """
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    encoding = None if "b" in mode else "utf-8"
    with tempfile.NamedTemporaryFile(
        mode, dir=folder, prefix=".new.", delete=False, encoding=encoding
    ) as file:
        try:
            yield file
            file.flush()
            # By the descriptor: in a shared folder another file may stand under the name by now. Temporary
            # files are private, this one is for others to read.
            os.fchmod(file.fileno(), 0o644)
            sync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.remove(file.name)
            raise
    sync_folder(folder)


@contextlib.contextmanager
def whole_folder(path: str) -> Iterator[str]:
    """A new folder to fill that takes the name `path` when the body ends, and leaves no trace if it fails.

    Its bytes have reached the disk before it has the name, and others may read it.

    Raises:
        OSError: `path` is a file or a folder that holds something, it cannot be written, or the disk is full.
    """
    parent = os.path.dirname(os.path.abspath(path))
    os.makedirs(parent, exist_ok=True)
    temporary = tempfile.mkdtemp(dir=parent, prefix=".new.")
    try:
        yield temporary
        for folder, _, names in os.walk(temporary, topdown=False):
            for name in names:
                os.chmod(os.path.join(folder, name), 0o644)
                sync_file(os.path.join(folder, name))
            os.chmod(folder, 0o755)
            sync_folder(folder)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(parent)


def can_replace(path: str) -> bool:
    """Whether `whole_file` can make or replace a file at `path`, or at the end of a link there.

    A device or a pipe would be replaced, not written to: for root, /dev/null too. /dev/stdout is a link and
    may end at the very file that a shell writes to.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        return False
    folders = [os.path.realpath(os.path.dirname(path) or ".")]
    if os.path.islink(path):
        folders.append(os.path.realpath(os.path.dirname(os.path.join(folders[0], os.readlink(path)))))
    if any(folder.startswith("/proc/") for folder in folders):
        return False
    return os.path.isdir(folders[-1]) and os.access(folders[-1], os.W_OK | os.X_OK)


def write_json(path: str, values: Any) -> None:
    """Writes `values` as indented JSON; see `whole_file`."""
    with whole_file(path) as file:
        json.dump(values, file, indent=2)
        file.write("\n")


def write_report(path: str, values: Any) -> None:
    """Writes what a user asked for with --json; see `write_json`. A link at `path` stays one.

    Raises:
        RunError: it cannot be written.
    """
    try:
        write_json(os.path.realpath(path), values)
    except OSError as error:
        raise RunError(f"--json {path} cannot be written: {error.strerror}") from error


class GrowingFile:
    """A log that lines are appended to: whole lines, each at once in the file.

    A disk that is full or fails costs lines and one warning on stderr, never the run.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: Optional[IO[bytes]] = None
        self._warned = False
        self.append_bytes(b"")

    def append(self, text: str) -> None:
        """Writes `text`, or nothing of it."""
        self.append_bytes(text.encode("utf-8", "backslashreplace"))

    def append_bytes(self, data: bytes) -> None:
        """Writes `data`, or nothing of it."""
        try:
            if self._file is None:
                os.makedirs(os.path.dirname(self._path) or ".", exist_ok=True)
                self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - until close()
            written = self._file.write(data)  # one write(2): an error means that nothing was written
        except OSError as error:
            self._warn(error)
            return
        if written != len(data):
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), os.fstat(self._file.fileno()).st_size - written)
            self._warn(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def close(self) -> None:
        """Closes the file."""
        try:
            if self._file is not None:
                self._file.close()
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(
                    f"warning: {self._path} cannot be written ({error.strerror}); the run goes on, and lines "
                    "are missing there until it can\n"
                )


def sync(descriptor: int) -> None:
    """Waits until a file's bytes are on the disk, where the file system can tell."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise


def sync_file(path: str) -> None:
    """As `sync`, for a file that something else has written."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: str) -> None:
    """Waits until the names in `folder` are on the disk, where the file system can tell."""
    with contextlib.suppress(OSError):
        sync_file(folder)
