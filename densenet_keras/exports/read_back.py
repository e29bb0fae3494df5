"""Reads an export in a process that knows nothing of the network it was made from.

    python -m densenet_keras.exports.read_back FORMAT FOLDER PICTURES LOGITS

PICTURES is a file of `pictures.save`; LOGITS is written, an .npz of the logits by each way in.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import Any, Dict, List

import numpy as np

import densenet_keras
from densenet_keras.errors import RunError
from densenet_keras.exports import formats, pictures
from densenet_keras.exports.base import Pictures

_LINES_SHOWN = 15


def read_back(name: str, folder: str, found: Pictures) -> Dict[str, np.ndarray]:
    """Logits by each way into the export in `folder`, read in a fresh process.

    Raises:
        RunError: it cannot be read; with the end of what the process said.
    """
    root = os.path.dirname(os.path.dirname(os.path.abspath(densenet_keras.__file__)))
    with tempfile.TemporaryDirectory() as exchange:
        given, taken = os.path.join(exchange, "pictures.npz"), os.path.join(exchange, "logits.npz")
        pictures.save(given, found)
        words = [sys.executable, "-m", __name__, name, os.path.abspath(folder), given, taken]
        done = subprocess.run(
            words, cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if done.returncode:
            said = done.stdout.decode("utf-8", "replace").splitlines()[-_LINES_SHOWN:]
            raise RunError("\n".join(["the export cannot be read back; nothing is kept of it:", *said]))
        with np.load(taken) as file:
            return dict(file.items())


def main(arguments: List[str]) -> int:
    """The process that reads."""
    name, folder, given, taken = arguments
    logits: Any = formats.find(name).read(folder, pictures.load(given))
    np.savez(taken, **logits)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
