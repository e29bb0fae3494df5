"""Checksums of each rank's weights at the end of training, by --callbacks MODULE:make of this module.

Ranks that trained together must hold the same weights; nothing in a checkpoint, which rank 0 writes
alone, would show that they do not.
"""

from __future__ import annotations

import json
import os
import zlib
from typing import Any, Dict, List, Mapping

import numpy as np
import tensorflow as tf

from densenet_keras import files
from densenet_keras.topology import LOCAL_RANK

FOLDER = "DENSENET_KERAS_DIGESTS"  # environment variable: where each rank of this host leaves its file


class WeightsDigest(tf.keras.callbacks.Callback):
    """Writes FOLDER/local_rank_R.json: global step, a CRC-32 of all weights, and one of each variable."""

    def __init__(self, folder: str, local_rank: int) -> None:
        super().__init__()
        self._path = os.path.join(folder, f"local_rank_{local_rank}.json")

    def on_train_end(self, logs: Any = None) -> None:
        """Reads the weights, on every rank alike."""
        names = [weight.name for weight in self.model.weights]
        values = self.model.get_weights()
        each = {name: zlib.crc32(np.asarray(value).tobytes()) for name, value in zip(names, values)}
        whole = zlib.crc32(json.dumps(sorted(each.items())).encode())
        files.write_json(self._path, {"step": logs.progress.step, "crc32": whole, "variables": each})


def make() -> List[tf.keras.callbacks.Callback]:
    """The callback of this rank; the environment says where it writes."""
    return [WeightsDigest(os.environ[FOLDER], int(os.environ.get(LOCAL_RANK, "0")))]


def read(folder: str) -> List[Mapping[str, Any]]:
    """What the ranks of this host left in `folder`, in rank order."""
    found: Dict[int, Any] = {}
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            found[int(name.rpartition("_")[2][: -len(".json")])] = json.load(file)
    return [found[rank] for rank in sorted(found)]
