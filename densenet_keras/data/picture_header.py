"""What the first bytes of a picture file say of it: format, size, components. No TensorFlow.

The header tells what a decoder will need before it runs: a format that it does not know, memory for
the pixels, and a PNG cut off so early that TensorFlow's decoder crashes the process.
"""

from __future__ import annotations

import struct
import zlib
from typing import Iterator, NamedTuple, Tuple

JPEG, PNG, GIF, BMP = "JPEG", "PNG", "GIF", "BMP"

JPEG_MAGIC = b"\xff\xd8\xff"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 200_000_000  # 600 MB once decoded; a header of a few bytes may announce 4,000 million
_FILL, _SCAN, _END = 0xFF, 0xDA, 0xD9
_STANDALONE = {0x01, *range(0xD0, 0xD8)}  # JPEG markers without a length behind them
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF markers: the size of the picture stands here
_PNG_HEADER_BYTES = 33  # magic, and the IHDR chunk
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type


class Header(NamedTuple):
    """A picture before it is decoded."""

    kind: str  # JPEG, PNG, GIF or BMP
    height: int  # pixels
    width: int  # pixels
    channels: int  # as stored: 1 grey, 2 grey with alpha, 3 colour, 4 CMYK or colour with alpha


class HeaderError(ValueError):
    """Bytes that cannot be decoded as a picture; the message says what they are."""


def kind_of(encoded: bytes) -> str:
    """The format of a file by its first bytes, such as "JPEG" or "WebP"; "" for one not known."""
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return "WebP"
    if encoded[4:8] == b"ftyp":
        brand = encoded[8:12]
        if brand in (b"avif", b"avis"):
            return "AVIF"
        return "HEIC" if brand in (b"heic", b"heix", b"mif1", b"msf1", b"hevc") else "MP4"
    for magic, kind in (
        (JPEG_MAGIC, JPEG), (PNG_MAGIC, PNG), (b"GIF87a", GIF), (b"GIF89a", GIF), (b"BM", BMP),
        (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"\0\0\x01\0", "ICO"), (b"8BPS", "Photoshop"),
        (b"%PDF", "PDF"), (b"PK\x03\x04", "zip"), (b"\x1f\x8b", "gzip"), (b"\x89HDF", "HDF5"),
        (b"\x93NUMPY", "NumPy"), (b"\0\0\0\x0cjP  ", "JPEG 2000"), (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL ", "JPEG XL"),
    ):  # fmt: skip
        if encoded.startswith(magic):
            return kind
    start = encoded[:256].lstrip().lower()
    if start.startswith((b"<svg", b"<?xml")):
        return "SVG or XML"
    return "HTML" if start.startswith((b"<!doctype html", b"<html")) else ""


def read(encoded: bytes) -> Header:
    """The header of a JPEG, PNG, GIF or BMP.

    Raises:
        HeaderError: another format, a header cut off, no pixels, or more than MAX_PIXELS of them.
    """
    if not encoded:
        raise HeaderError("empty, 0 bytes")
    kind = kind_of(encoded)
    readers = {JPEG: _jpeg, PNG: _png, GIF: _gif, BMP: _bmp}
    if kind not in readers:
        what = f"a {kind} file" if kind else f"not a picture: it starts with {encoded[:8]!r}"
        raise HeaderError(f"{what}, not JPEG, PNG, GIF or BMP")
    try:
        header = readers[kind](encoded)
    except struct.error as error:
        raise HeaderError(f"the {kind} header is cut off") from error
    if header.height < 1 or header.width < 1:
        raise HeaderError(f"the {kind} header announces {header.width}x{header.height} pixels")
    if header.height * header.width > MAX_PIXELS:
        raise HeaderError(
            f"{header.width}x{header.height} pixels, more than {MAX_PIXELS // 1_000_000} million; shrink it"
        )
    return header


def jpeg_segments(encoded: bytes) -> Iterator[Tuple[int, int, int]]:
    """(marker, first byte, end) of the content of each segment of a JPEG before its first scan."""
    position = 2
    while encoded.startswith(b"\xff\xd8") and position + 4 <= len(encoded) and encoded[position] == _FILL:
        marker = encoded[position + 1]
        if marker == _FILL:  # any number of them may stand before a marker
            position += 1
            continue
        if marker in (_SCAN, _END):
            return
        if marker in _STANDALONE:
            position += 2
            continue
        length = int.from_bytes(encoded[position + 2 : position + 4], "big")
        yield marker, position + 4, position + 2 + length
        position += 2 + max(length, 2)


def png_chunks(encoded: bytes) -> Iterator[Tuple[bytes, int, int]]:
    """(type, first byte, end) of the content of each chunk of a PNG."""
    position = len(PNG_MAGIC)
    while position + 12 <= len(encoded):
        length = int.from_bytes(encoded[position : position + 4], "big")
        yield encoded[position + 4 : position + 8], position + 8, position + 8 + length
        position += 12 + length


def _jpeg(encoded: bytes) -> Header:
    for marker, start, _ in jpeg_segments(encoded):
        if marker in _FRAMES:
            _, height, width, channels = struct.unpack_from(">BHHB", encoded, start)
            return Header(JPEG, height, width, channels)
    raise HeaderError("the JPEG has no frame header: it is cut off or damaged")


def _png(encoded: bytes) -> Header:
    length, name, width, height, _, colour = struct.unpack_from(">I4sIIBB", encoded, len(PNG_MAGIC))
    if len(encoded) < _PNG_HEADER_BYTES:
        raise HeaderError("the PNG header is cut off")
    (checksum,) = struct.unpack_from(">I", encoded, _PNG_HEADER_BYTES - 4)
    if name != b"IHDR" or length != 13 or zlib.crc32(encoded[12 : _PNG_HEADER_BYTES - 4]) != checksum:
        raise HeaderError("the PNG header is damaged")
    return Header(PNG, height, width, _PNG_CHANNELS.get(colour, 3))


def _gif(encoded: bytes) -> Header:
    width, height = struct.unpack_from("<HH", encoded, 6)
    return Header(GIF, height, width, 3)


def _bmp(encoded: bytes) -> Header:
    (header_bytes,) = struct.unpack_from("<I", encoded, 14)
    if header_bytes < 40:
        raise HeaderError("a BMP of OS/2's kind; convert it to JPEG or PNG")
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", encoded, 18)
    if bits not in (8, 24, 32) or compression not in (0, 3):
        raise HeaderError(f"a BMP with {bits} bits a pixel, or compressed; convert it to JPEG or PNG")
    return Header(BMP, abs(height), width, bits // 8)
