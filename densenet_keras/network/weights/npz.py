"""Arrays of a .npz file of numpy.savez, which `scripts/torch_to_npz.py` writes; objects are refused."""

from __future__ import annotations

import zipfile
from typing import Dict

import numpy as np

from densenet_keras.errors import UsageError
from densenet_keras.network.weights.tensors import Shape, Tensors, reading

_SUFFIX = ".npy"


def recognises(names: Dict[str, int]) -> bool:
    """Whether a ZIP archive with members of these names is one: all of them are arrays."""
    return bool(names) and all(name.endswith(_SUFFIX) for name in names)


def read(path: str) -> Tensors:
    """The arrays of the file; each is read when it is asked for.

    Raises:
        UsageError: the file is damaged, or holds Python objects, which are never unpickled.
    """
    with reading(path):
        shapes = _shapes(path)

    def read_one(name: str) -> np.ndarray:
        with reading(path, name), np.load(path, allow_pickle=False) as file:
            array: np.ndarray = file[name]
            return array

    return Tensors("npz", shapes, read_one)


def _shapes(path: str) -> Dict[str, Shape]:
    """From the header of each member, without its values."""
    shapes: Dict[str, Shape] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                reader = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )  # fmt: skip
                shape, _, dtype = reader(file)
            name = member[: -len(_SUFFIX)]
            if dtype.hasobject:
                raise UsageError(
                    f"{path}: {name} is a Python object, which is never unpickled; save plain arrays, "
                    "as scripts/torch_to_npz.py does"
                )
            shapes[name] = tuple(shape)
    return shapes
