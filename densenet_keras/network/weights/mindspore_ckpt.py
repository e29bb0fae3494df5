"""Parameters of a MindSpore .ckpt: one protocol buffer, read from its wire format without the package.

    message Checkpoint { repeated Value value = 1; }
    message Value { string tag = 1; TensorProto tensor = 2; }
    message TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3; }

(mindspore/ccsrc/utils/checkpoint.proto). A large parameter is cut into values of the same tag, one after
another. With crc_check the file ends in `crc_num` and ten bytes, the CRC-32 of all before.
"""

from __future__ import annotations

import zlib
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import numpy as np

from densenet_keras.network.weights.tensors import Shape, Tensors, bfloat16, reading

_VALUE, _TAG, _TENSOR = 1, 1, 2
_DIMS, _TYPE, _CONTENT = 1, 2, 3
_VARINT, _BYTES = 0, 2  # kinds of field; the other two have a fixed size
_FIXED_BYTES = {1: 8, 5: 4}
_CRC_MARK, _CRC_BYTES = b"crc_num", 10
_DTYPES = {
    "Float64": "<f8", "Float32": "<f4", "Float16": "<f2", "BFloat16": "<u2", "Int64": "<i8", "Int32": "<i4",
    "Int16": "<i2", "Int8": "i1", "UInt64": "<u8", "UInt32": "<u4", "UInt16": "<u2", "UInt8": "u1",
    "Bool": "?",
}  # fmt: skip


class _Parameter(NamedTuple):
    kind: str
    dims: Shape
    slices: List[memoryview]


def recognises(start: bytes) -> bool:
    """Whether a file that starts so is of this format: a value whose tag is a name, then its tensor."""
    data = memoryview(start)
    try:
        key, place = _varint(data, 0)
        _, place = _varint(data, place)
        tag_key, place = _varint(data, place)
        length, place = _varint(data, place)
        tag = bytes(data[place : place + length]).decode("ascii")
        tensor_key, _ = _varint(data, place + length)
    except ValueError:
        return False
    keys = [(number << 3) | _BYTES for number in (_VALUE, _TAG, _TENSOR)]
    return [key, tag_key, tensor_key] == keys and tag.isprintable()


def read(path: str) -> Tensors:
    """The parameters of the file, which is held in memory; strings and unknown types are passed over.

    Raises:
        UsageError: the file is damaged.
    """
    with reading(path):
        with open(path, "rb") as file:
            content = file.read()
        parameters = _parameters(_checked(content))

    def read_one(name: str) -> np.ndarray:
        found = parameters[name]
        with reading(path, name):
            values = np.frombuffer(b"".join(found.slices), _DTYPES[found.kind]).reshape(found.dims)
        return bfloat16(values) if found.kind == "BFloat16" else values

    return Tensors("MindSpore checkpoint", {name: found.dims for name, found in parameters.items()}, read_one)


def _checked(content: bytes) -> memoryview:
    """The message without the checksum at its end, if there is one, once that is right."""
    end = len(content) - _CRC_BYTES - len(_CRC_MARK)
    if end < 0 or content[end : end + len(_CRC_MARK)] != _CRC_MARK:
        return memoryview(content)
    if zlib.crc32(content[:end]) != int.from_bytes(content[-_CRC_BYTES:], "big"):
        raise ValueError("its checksum does not match")
    return memoryview(content)[:end]


def _parameters(message: memoryview) -> Dict[str, _Parameter]:
    found: Dict[str, _Parameter] = {}
    for number, value in _fields(message):
        if number != _VALUE or isinstance(value, int):
            raise ValueError(f"field {number} where a value was expected")
        parts = dict(_fields(value))
        if _TAG not in parts or _TENSOR not in parts:
            continue  # a map parameter or the like
        tag = _text(parts[_TAG])
        parameter = _parameter(parts[_TENSOR])
        if parameter.kind not in _DTYPES:
            continue
        if tag in found:
            found[tag].slices.extend(parameter.slices)
        else:
            found[tag] = parameter
    for tag, parameter in found.items():
        needed = np.dtype(_DTYPES[parameter.kind]).itemsize * int(np.prod(parameter.dims, dtype=np.int64))
        held = sum(len(part) for part in parameter.slices)
        if held != needed:
            raise ValueError(f"{tag} has {held} bytes of {needed}")
    return found


def _parameter(tensor: memoryview) -> _Parameter:
    dims: List[int] = []
    kind, slices = "", []
    for number, value in _fields(tensor):
        if number == _DIMS:
            dims += [value] if isinstance(value, int) else list(_varints(value))
        elif number == _TYPE:
            kind = _text(value)
        elif number == _CONTENT:
            slices.append(value)
    return _Parameter(kind, tuple(dims), slices)


def _text(value: Any) -> str:
    if isinstance(value, int):  # bytes(number) would make as many zeros
        raise ValueError("a number where a name was expected")
    return bytes(value).decode("utf-8")


def _fields(message: memoryview) -> Iterator[Tuple[int, Any]]:
    """(number, value) of each field of a message: integers as int, bytes as memoryview."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, place = _varint(message, place)
        elif kind in _FIXED_BYTES:
            length = _FIXED_BYTES[kind]
        else:
            raise ValueError(f"no field starts at byte {place}")
        if place + length > len(message):
            raise ValueError(f"a field of {length} bytes where {len(message) - place} are left")
        yield key >> 3, message[place : place + length]
        place += length


def _varints(packed: memoryview) -> Iterator[int]:
    place = 0
    while place < len(packed):
        value, place = _varint(packed, place)
        yield value


def _varint(data: memoryview, place: int) -> Tuple[int, int]:
    """The number at `place`, seven bits a byte and the lowest first, and the place behind it."""
    value = shift = 0
    while place < len(data) and shift < 64:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not byte & 0x80:
            return value, place
    raise ValueError("it ends inside a number")
