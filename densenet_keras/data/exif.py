"""The rotation that a camera notes beside a picture: read from the file's bytes, applied to its pixels.

A phone stores its pictures as the sensor lies and notes in EXIF how a viewer shall turn them.
TensorFlow's decoders ignore that note. Here it is decided once what the project does with it:

- `prepare` turns pictures upright, so that records need no note,
- training and evaluation show the pictures of records as they are stored, as TensorFlow does,
- `predict` turns the files that it is given upright.

Source of the format: EXIF 2.3 (CIPA DC-008), section 4.6; TIFF 6.0, sections 2 and 8.
"""

from __future__ import annotations

import struct
from typing import Optional

import numpy as np

from densenet_keras.data import picture_header

UPRIGHT = 1

_EXIF = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
_FORMATS = {3: "H", 4: "I"}  # TIFF types SHORT and LONG
_APP1 = 0xE1


def orientation(encoded: bytes) -> int:
    """How a JPEG or PNG shall be turned to be seen upright: 1 (not at all) to 8, EXIF's numbers.

    1 as well where nothing is noted, where the note is damaged or makes no sense, and for bytes of any
    other kind.
    """
    tiff = _png_exif(encoded) if encoded.startswith(picture_header.PNG_MAGIC) else _jpeg_exif(encoded)
    if tiff is None:
        return UPRIGHT
    try:
        noted = _orientation_entry(tiff)
    except struct.error:  # the block is cut off
        return UPRIGHT
    return noted if noted is not None and 1 <= noted <= 8 else UPRIGHT


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """`image` ([height, width, ...]) as a viewer shows it; height and width change places for 5 to 8.

    A view where NumPy can give one, not a copy.
    """
    if orientation in (5, 6, 7, 8):
        image = np.swapaxes(image, 0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def _orientation_entry(tiff: bytes) -> Optional[int]:
    """The orientation in a TIFF block's first directory; struct.error where the block is cut off."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    (directory,) = struct.unpack_from(order + "I", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, directory)
    for number in range(entries):
        place = directory + 2 + 12 * number
        tag, kind = struct.unpack_from(order + "HH", tiff, place)
        if tag == _ORIENTATION_TAG and kind in _FORMATS:
            return int(struct.unpack_from(order + _FORMATS[kind], tiff, place + 8)[0])
    return None


def _jpeg_exif(encoded: bytes) -> Optional[bytes]:
    """The TIFF block of the EXIF segment, which stands before the image data; None if there is none."""
    for marker, start, end in picture_header.jpeg_segments(encoded):
        if marker == _APP1 and encoded.startswith(_EXIF, start):
            return encoded[start + len(_EXIF) : end]
    return None


def _png_exif(encoded: bytes) -> Optional[bytes]:
    """What the eXIf chunk holds; None if there is none."""
    for kind, start, end in picture_header.png_chunks(encoded):
        if kind == b"eXIf":
            return encoded[start:end]
    return None
