"""Arrays of a .safetensors file: 8 bytes with the length of a JSON header, the header, raw arrays.

The header maps names to {"dtype", "shape", "data_offsets"}; offsets count from its end, little-endian, C
order (github.com/huggingface/safetensors, its README). The package of that name is not needed.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any, Dict

import numpy as np

from densenet_keras.network.weights.tensors import Tensors, bfloat16, damaged, reading

_LONGEST_HEADER_BYTES = 100_000_000  # the format's own limit
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def recognises(start: bytes) -> bool:
    """Whether a file that starts so is of this format."""
    if len(start) < 9 or start[8:9] != b"{":
        return False
    return 2 <= struct.unpack("<Q", start[:8])[0] <= _LONGEST_HEADER_BYTES


def read(path: str) -> Tensors:
    """The arrays of the file; each is read when it is asked for.

    Raises:
        UsageError: the file is damaged, or an array has a type that no weights have.
    """
    with reading(path, "its header cannot be read"):
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            text = file.read(length)
        header = json.loads(text.decode("utf-8"))
        header.pop("__metadata__", None)
        arrays = {name: _entry(each) for name, each in header.items()}
    start, size = 8 + length, os.path.getsize(path)
    for name, each in arrays.items():
        if start + each["end"] > size:
            raise damaged(path, f"{name} ends at byte {start + each['end']} of {size}")

    def read_one(name: str) -> np.ndarray:
        each = arrays[name]
        with reading(path, name):
            with open(path, "rb") as file:
                file.seek(start + each["begin"])
                values = np.frombuffer(file.read(each["end"] - each["begin"]), each["stored"])
            values = values.reshape(each["shape"])
        return bfloat16(values) if each["dtype"] == "BF16" else values

    return Tensors("safetensors", {name: each["shape"] for name, each in arrays.items()}, read_one)


def _entry(described: Dict[str, Any]) -> Dict[str, Any]:
    shape = tuple(int(side) for side in described["shape"])
    begin, end = (int(offset) for offset in described["data_offsets"])
    stored = np.dtype(_DTYPES[described["dtype"]])
    if end - begin != stored.itemsize * int(np.prod(shape, dtype=np.int64)) or begin < 0:
        raise ValueError(f"{described['dtype']} of shape {shape} in {end - begin} bytes")
    return {"dtype": described["dtype"], "stored": stored, "shape": shape, "begin": begin, "end": end}
