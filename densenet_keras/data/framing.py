"""The records of a TFRecord file, damaged stretches included: what is lost is the least that can be."""

from __future__ import annotations

import struct
from typing import BinaryIO, Iterator, NamedTuple, Optional

import numpy as np

from densenet_keras.data import tfrecord
from densenet_keras.data.crc32c import masked_crc32c

_CHUNK_BYTES = 8 << 20


class Stretch(NamedTuple):
    """A record, or bytes from which none can be read.

    Attributes:
        start, end: bytes of the file, with the framing.
        payload: None where it is damaged.
        checksum: of the payload, as stored.
        damage: what is wrong, without the file's name; empty if nothing is.
    """

    start: int
    end: int
    payload: Optional[bytes]
    checksum: int
    damage: str


class CutOff(tfrecord.FormatError):
    """A file that ends inside a record: nobody can tell how many are missing behind it."""


def stretches(file: BinaryIO, file_bytes: int) -> Iterator[Stretch]:
    """All records of `file` in order, every checksum verified, and the damaged stretches between them.

    Where a length is damaged, the next record is looked for by the checksum of its own length.

    Raises:
        CutOff: the file ends inside a record.
        FormatError: it is not a TFRecord file.
    """
    position = 0
    pending: Optional[Stretch] = None  # damaged: its end is not sure before the next header is seen
    while position < file_bytes:
        found = _read(file, position, file_bytes)
        if found is not None:
            if pending:
                yield pending
            pending = found if found.damage else None
            if not pending:
                yield found
            position = found.end
            continue
        # Bytes may be missing from the record before, whose end is then before this place.
        following = _next_header(file, (pending.start if pending else position) + 1, file_bytes)
        if following is None and position == 0:
            raise tfrecord.FormatError(tfrecord.not_a_record_file(_at(file, 0, tfrecord.HEADER_BYTES)))
        end = file_bytes if following is None else following
        if pending and end < position:
            yield pending._replace(end=end)
        else:
            if pending:
                yield pending
            yield _lost(position, end, following is None)
        pending, position = None, end
        file.seek(position)
    if pending:
        yield pending


def _read(file: BinaryIO, start: int, file_bytes: int) -> Optional[Stretch]:
    """What stands at `start`, where `file` is; None if no record begins there."""
    header = file.read(tfrecord.HEADER_BYTES)
    if len(header) < tfrecord.HEADER_BYTES:
        raise CutOff(f"the file ends inside a record header ({len(header)} of {tfrecord.HEADER_BYTES} bytes)")
    length, length_checksum = struct.unpack("<QI", header)
    if length_checksum != masked_crc32c(header[:8]):
        return None
    payload = file.read(min(length, file_bytes))
    footer = file.read(tfrecord.FOOTER_BYTES)
    if len(payload) < length or len(footer) < tfrecord.FOOTER_BYTES:
        raise CutOff(
            f"the record is cut off: {length + tfrecord.FOOTER_BYTES} bytes announced, "
            f"{len(payload) + len(footer)} left in the file"
        )
    end = start + tfrecord.HEADER_BYTES + length + tfrecord.FOOTER_BYTES
    checksum = struct.unpack("<I", footer)[0]
    if checksum == masked_crc32c(payload):
        return Stretch(start, end, payload, checksum, "")
    return Stretch(start, end, None, checksum, tfrecord.WRONG_CHECKSUM)


def _lost(begun: int, end: int, is_last: bool) -> Stretch:
    what = "no record can be found behind it" if is_last else "the next record was found behind it"
    damage = f"{tfrecord.WRONG_LENGTH}; {end - begun} bytes are lost, {what}"
    return Stretch(begun, end, None, 0, damage)


def _next_header(file: BinaryIO, first: int, file_bytes: int) -> Optional[int]:
    """The first byte from `first` on at which a record begins that fits the file; None without one."""
    overlap = tfrecord.HEADER_BYTES - 1
    for begin in range(first, file_bytes, _CHUNK_BYTES):
        data = _at(file, begin, _CHUNK_BYTES + overlap)
        for place in _plausible(data, file_bytes):
            header = data[place : place + tfrecord.HEADER_BYTES]
            length, checksum = struct.unpack("<QI", header)
            fits = begin + place + len(header) + length + tfrecord.FOOTER_BYTES <= file_bytes
            if fits and checksum == masked_crc32c(header[:8]):
                return begin + int(place)
    return None


def _plausible(data: bytes, file_bytes: int) -> np.ndarray:
    """Places in `data` whose eight bytes are a length above 0 and within the file."""
    count = len(data) - tfrecord.HEADER_BYTES + 1
    if count <= 0:
        return np.zeros(0, np.int64)
    column = np.frombuffer(data, np.uint8)
    # From the highest byte of the length down: hardly a place of a picture passes the first.
    places = np.flatnonzero(column[7 : 7 + count] == 0)
    for byte in (6, 5):
        places = places[column[places + byte] == 0]
    lengths = np.zeros(len(places), np.int64)
    for byte in range(5):
        lengths += column[places + byte].astype(np.int64) << (8 * byte)
    return places[(lengths > 0) & (lengths < file_bytes)]


def _at(file: BinaryIO, place: int, byte_count: int) -> bytes:
    file.seek(place)
    return file.read(byte_count)
