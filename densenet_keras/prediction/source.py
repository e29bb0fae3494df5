"""Which network answers: the settings of the one in a run folder. No TensorFlow."""

from __future__ import annotations

from densenet_keras import backends
from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import run_folder
from densenet_keras.errors import UsageError
from densenet_keras.settings.config import PREDICT, Config


def network_config(path: str) -> Config:
    """The settings of the network in `path`, a run folder or a checkpoint, on one rank of this machine.

    Raises:
        UsageError: no checkpoint is there, or nothing beside it says what the network is.
    """
    checkpoint_files.resolve(path)
    stored = run_folder.stored_config(path)
    if stored is None:
        raise UsageError(
            f"{path}: no manifest or run.json beside it, so its network is not known; give the run folder, "
            "or bring weights of other programs into one with python -m densenet_keras import"
        )
    return stored.replace(
        command=PREDICT,
        backend=backends.automatic(),
        rank_size=1,
        data_threads=None,
        intra_op_threads=None,
    )
