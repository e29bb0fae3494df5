"""TFRecord framing and the few bytes of protocol buffers that image records need.

A record is: length (uint64), masked CRC-32C of the length, payload, masked CRC-32C of the payload,
all little-endian. The payload is a serialised tf.train.Example; its image and label are found by
reading the wire format, so that neither TensorFlow nor generated code is needed.
"""

from __future__ import annotations

import functools
import struct
from typing import Any, BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

from densenet_keras.data.crc32c import masked_crc32c

HEADER_BYTES = 12
FOOTER_BYTES = 4

IMAGE_KEY = "image/encoded"
LABEL_KEY = "image/class/label"
WRONG_CHECKSUM = "the checksum of the data does not match"
WRONG_LENGTH = "the checksum of the record length does not match"

_KEYS_SHOWN = 8
_TEXT_SHOWN_BYTES = 32

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5

Feature = Union[bytes, str, int, float]


class FormatError(ValueError):
    """Bytes that break the format; the message says how, without naming the file."""


class UnusableExample(FormatError):
    """A record that is whole, and holds something else than one picture and its label."""


class ImageExample(NamedTuple):
    """Where the image lies in an Example, and its label."""

    image_start: int  # bytes from the start of the payload
    image_bytes: int
    label: int


def frame(payload: bytes) -> bytes:
    """`payload` as one record of a TFRecord file."""
    return b"".join(frame_pieces([payload]))


def frame_pieces(payload: List[bytes]) -> List[bytes]:
    """The record whose payload lies in pieces, in pieces too: none is copied."""
    return [header(sum(map(len, payload))), *payload, struct.pack("<I", masked_crc32c(*payload))]


def header(length: int) -> bytes:
    """What stands before a payload of `length` bytes."""
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", masked_crc32c(packed))


def check_payload(footer: bytes, *payload: bytes) -> None:
    """Raises FormatError unless `footer` is the checksum of `payload`, which may lie in pieces."""
    if len(footer) != FOOTER_BYTES or struct.unpack("<I", footer)[0] != masked_crc32c(*payload):
        raise FormatError(WRONG_CHECKSUM)


def read_records(file: BinaryIO, file_bytes: int) -> Iterator[Tuple[int, bytes, bytes]]:
    """(offset of the payload, payload, its checksum as stored) of each record of `file`.

    Raises:
        FormatError: a damaged length or a cut record, behind which no other can be found.
    """
    offset = 0
    while offset < file_bytes:
        header = file.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            raise FormatError(f"the file ends inside a record header ({len(header)} of {HEADER_BYTES} bytes)")
        length, length_crc = struct.unpack("<QI", header)
        if length_crc != masked_crc32c(header[:8]):
            if offset == 0:
                raise FormatError(not_a_record_file(header))
            raise FormatError(WRONG_LENGTH)
        payload = file.read(min(length, file_bytes))
        footer = file.read(FOOTER_BYTES)
        if len(payload) < length or len(footer) < FOOTER_BYTES:
            raise FormatError(
                f"the record is cut off: {length + FOOTER_BYTES} bytes announced, "
                f"{len(payload) + len(footer)} left in the file"
            )
        yield offset + HEADER_BYTES, payload, footer
        offset += HEADER_BYTES + length + FOOTER_BYTES


def not_a_record_file(header: bytes) -> str:
    """What a file is that begins with `header` and with no record."""
    if header.startswith(b"\x1f\x8b"):
        return "the file is gzip-compressed, not a plain TFRecord file; unpack it"
    return "the file is not a TFRecord file: the checksum of the first record's length does not match"


def parse_example(payload: bytes) -> ImageExample:
    """The image and label of a serialised tf.train.Example.

    Raises:
        FormatError: no protocol buffer, or not exactly one image and one label in it.
    """
    image: Optional[Tuple[int, int]] = None
    label: Optional[int] = None
    for name, start, end in _features(payload):
        if name == IMAGE_KEY:
            values = _values(payload, start, end, kind=1)
            if len(values) != 1:
                raise UnusableExample(
                    f"{IMAGE_KEY} must hold one byte string, the encoded picture; it holds "
                    f"{_stored(payload, start, end)}"
                )
            if values[0][1] == 0:
                raise UnusableExample(f"{IMAGE_KEY} must hold an encoded picture; it is empty, of 0 bytes")
            image = values[0]
        elif name == LABEL_KEY:
            integers = _integers(payload, start, end)
            if len(integers) != 1:
                raise UnusableExample(
                    f"{LABEL_KEY} must hold one integer, the number of the class; it holds "
                    f"{_stored(payload, start, end)}"
                )
            label = integers[0]
    if image is None or label is None:
        missing = IMAGE_KEY if image is None else LABEL_KEY
        keys = sorted(f"{name} ({_stored(payload, start, end)})" for name, start, end in _features(payload))
        more = f" and {len(keys) - _KEYS_SHOWN} more" if len(keys) > _KEYS_SHOWN else ""
        raise UnusableExample(
            f"the Example has no {missing}; it holds {', '.join(keys[:_KEYS_SHOWN]) or 'nothing'}{more}"
        )
    return ImageExample(image[0], image[1], label)


def _stored(payload: bytes, start: int, end: int) -> str:
    """What a Feature holds, in words."""
    texts = _values(payload, start, end, kind=1)
    if len(texts) == 1:
        first, size = texts[0]
        shown = f" {payload[first : first + size]!r}" if size <= _TEXT_SHOWN_BYTES else ""
        return f"a byte string{shown} of {size} bytes"
    # Packed or not: four bytes a number.
    floats = sum(size // 4 for _, size in _values(payload, start, end, kind=2))
    integers = len(_integers(payload, start, end))
    for count, kind in ((len(texts), "byte string"), (floats, "float"), (integers, "integer")):
        if count:
            return f"{count} {kind}{'s' if count > 1 else ''}"
    return "nothing"


def read_example(payload: bytes) -> Dict[str, List[Any]]:
    """Every feature of a serialised tf.train.Example: its values, all bytes, all int or all float.

    Raises:
        FormatError: no such protocol buffer.
    """
    found: Dict[str, List[Any]] = {}
    for name, start, end in _features(payload):
        values: List[Any] = [payload[first : first + size] for first, size in _values(payload, start, end, 1)]
        for first, size in _values(payload, start, end, kind=2):
            values += struct.unpack_from(f"<{size // 4}f", payload, first)
        found[name] = values + _integers(payload, start, end)
    return found


def _features(data: bytes) -> Iterator[Tuple[str, int, int]]:
    """(name, start, end) of each Feature message in an Example."""
    for number, _, start, end in _fields(data, 0, len(data)):
        if number != 1:  # Example.features
            continue
        for entry, _, entry_start, entry_end in _fields(data, start, end):
            if entry == 1:  # Features.feature, a map
                yield _map_entry(data, entry_start, entry_end)


def _map_entry(data: bytes, start: int, end: int) -> Tuple[str, int, int]:
    """The key (field 1) and where the value lies (field 2)."""
    # As every writer has it, a short key and behind it the value and nothing else: in half of the time.
    if end - start > 4 and data[start] == 0x0A and data[start + 1] < min(0x80, end - start - 3):
        key_end = start + 2 + data[start + 1]
        if data[key_end] == 0x12:
            length, value = _varint(data, key_end + 1, end)
            if value + length == end:
                return data[start + 2 : key_end].decode("utf-8", "replace"), value, end
    name, found = "", (end, end)
    for field, _, field_start, field_end in _fields(data, start, end):
        if field == 1:
            name = data[field_start:field_end].decode("utf-8", "replace")
        elif field == 2:
            found = (field_start, field_end)
    return (name, *found)


def _values(data: bytes, start: int, end: int, kind: int) -> List[Tuple[int, int]]:
    """(start, length) of each entry of the Feature's bytes (1), float (2) or int64 (3) list."""
    found = []
    for number, wire, list_start, list_end in _fields(data, start, end):
        if number == kind and wire == _LENGTH_DELIMITED:
            for entry, _, entry_start, entry_end in _fields(data, list_start, list_end):
                if entry == 1:
                    found.append((entry_start, entry_end - entry_start))
    return found


def _integers(data: bytes, start: int, end: int) -> List[int]:
    """The values of an Int64List, packed or not."""
    integers = []
    for value_start, length in _values(data, start, end, kind=3):
        position = value_start
        while position < value_start + length:
            value, position = _varint(data, position, value_start + length)
            integers.append(value - (1 << 64) if value >= 1 << 63 else value)
    return integers


def _fields(data: bytes, start: int, end: int) -> Iterator[Tuple[int, int, int, int]]:
    """(number, wire type, start, end) of the content of each field of a message."""
    position = start
    while position < end:
        tag = data[position]
        if tag < 0x80:
            position += 1
        else:
            tag, position = _varint(data, position, end)
        wire = tag & 7
        content = position
        if wire == _VARINT:
            _, position = _varint(data, position, end)
        elif wire == _LENGTH_DELIMITED:
            length, content = _varint(data, position, end)
            position = content + length
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            raise FormatError("the record is not a serialised tf.train.Example")
        if position > end:
            raise FormatError("the record is not a serialised tf.train.Example: a field runs past its end")
        yield tag >> 3, wire, content, position


def _varint(data: bytes, position: int, end: int) -> Tuple[int, int]:
    if position < end and data[position] < 0x80:  # most of them
        return data[position], position + 1
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
    raise FormatError("the record is not a serialised tf.train.Example: a number runs past its end")


def encode_example(features: Dict[str, Feature]) -> bytes:
    """A serialised tf.train.Example with one value for each feature, in the order given."""
    return b"".join(example_pieces(features))


def example_pieces(features: Dict[str, Feature]) -> List[bytes]:
    """`encode_example` in two pieces. The second is the last value, if that is bytes: it is not copied."""
    if not features:
        return [b"", b"".join(_delimited(1, []))]
    *others, (name, value) = features.items()
    entries = [_other_entry(*other) for other in others] + _entry(name, value)
    *before, last = _delimited(1, entries)
    return [b"".join(before), last]


# Most of what stands beside the image is the same in many records.
@functools.lru_cache(maxsize=4096, typed=True)
def _other_entry(name: str, value: Any) -> bytes:
    return b"".join(_entry(name, value))


def _entry(name: str, value: Any) -> List[bytes]:
    return _delimited(1, _delimited(1, [name.encode("utf-8")]) + _delimited(2, _feature(value)))


def _feature(value: Any) -> List[bytes]:
    if isinstance(value, int):
        return _delimited(3, _delimited(1, [_encode_varint(value & 0xFFFFFFFFFFFFFFFF)]))
    if isinstance(value, float):
        return _delimited(2, _delimited(1, [struct.pack("<f", value)]))
    return _delimited(1, _delimited(1, [value.encode("utf-8") if isinstance(value, str) else value]))


def _delimited(number: int, content: List[bytes]) -> List[bytes]:
    """A field, in pieces: put together at each of five levels, an image would be copied as often."""
    length = sum(map(len, content))
    return [_encode_varint(number << 3 | _LENGTH_DELIMITED) + _encode_varint(length), *content]


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
