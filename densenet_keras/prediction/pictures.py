"""The pictures that somebody asks about: files, folders, lists."""

from __future__ import annotations

import os
from typing import Iterable, Iterator, List

from densenet_keras.errors import UsageError

FROM_STDIN = "-"
# What decoders are tried on when a folder is searched; a file that is named is tried whatever its ending.
ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif")


def find(named: Iterable[str], stdin: Iterable[str] = ()) -> List[str]:
    """The paths of all pictures that `named` means, in order: folders are searched, hidden files left out.

    Args:
        named: files, folders, and "-" for the lines of `stdin`.

    Raises:
        UsageError: a path does not exist, a folder cannot be read, or there is no picture at all.
    """
    found: List[str] = []
    for path in named:
        if path == FROM_STDIN:
            found += [line.rstrip("\r\n") for line in stdin if line.strip()]
        elif os.path.isdir(path):
            found += _in_folder(path)
        elif os.path.lexists(path):
            found.append(path)
        else:
            raise UsageError(f"{path}: no such file or folder; give pictures, folders, or - for a list")
    if not found:
        raise UsageError(
            f"no picture in {' '.join(named) or 'what was given'}; a folder is searched for the endings "
            f"{', '.join(ENDINGS)}"
        )
    return found


def _in_folder(folder: str) -> Iterator[str]:
    """Links are followed, as `prepare` does, but not in a circle."""
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        here = os.path.join(os.path.realpath(place), "")
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and not here.startswith(os.path.join(os.path.realpath(os.path.join(place, name)), ""))
        )
        for name in sorted(names):
            if not name.startswith(".") and name.lower().endswith(ENDINGS):
                yield os.path.join(place, name)


def _refuse(error: OSError) -> None:
    raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from error
