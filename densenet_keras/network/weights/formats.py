"""Which format a file is of, by its first bytes; never by its name."""

from __future__ import annotations

import os
import re
import zipfile

from densenet_keras.errors import UsageError
from densenet_keras.network.weights import (
    keras_h5,
    mindspore_ckpt,
    npz,
    safetensors,
    tensorflow_checkpoint,
)
from densenet_keras.network.weights.tensors import Tensors, damaged, several

FORMATS = (
    "Keras .h5, .safetensors, .npz, a MindSpore .ckpt, or a TensorFlow checkpoint (the name of its files "
    "without .index)"
)
_START_BYTES = 4096


def read(path: str) -> Tensors:
    """The arrays in `path`, a file or the prefix of a TensorFlow checkpoint.

    Raises:
        UsageError: there is none, it is damaged, or of no format that is known here.
    """
    if not os.path.isfile(path):
        if os.path.isfile(path + ".index"):
            return tensorflow_checkpoint.read(path)
        raise UsageError(f"{path} does not exist; give a file of weights: {FORMATS}")
    with open(path, "rb") as file:
        start = file.read(_START_BYTES)
    if keras_h5.recognises(start):
        return keras_h5.read(path)
    if start.startswith(b"PK"):
        return _open_archive(path)
    if safetensors.recognises(start):
        return safetensors.read(path)
    if mindspore_ckpt.recognises(start):
        return mindspore_ckpt.read(path)
    if re.match(rb"\x80[\x02-\x05]", start):
        raise _pickled(path)
    raise UsageError(f"{path} is not a file of weights that is known here: {FORMATS}")


def _open_archive(path: str) -> Tensors:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {each.filename: each.file_size for each in archive.infolist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise damaged(path, str(error)) from error
    if npz.recognises(members):
        return npz.read(path)
    if any(name.endswith("data.pkl") for name in members):
        raise _pickled(path)
    if "model.weights.h5" in members:
        raise UsageError(
            f"{path} is a .keras file of Keras 3; save the model with model.save('model.h5') and import that"
        )
    raise UsageError(f"{path} is a ZIP archive, but no .npz file: {several(sorted(members))}; give {FORMATS}")


def _pickled(path: str) -> UsageError:
    return UsageError(
        f"{path} is a pickle of Torch, and unpickling runs whatever code a file holds, so that is not done "
        f"here. Where torch is installed, python scripts/torch_to_npz.py {path} weights.npz writes its "
        "arrays to a file that can be imported"
    )
