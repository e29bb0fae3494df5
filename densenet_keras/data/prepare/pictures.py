"""What becomes of one picture: kept byte for byte, written anew, or left out with a reason."""

from __future__ import annotations

from typing import NamedTuple, Optional

import numpy as np

from densenet_keras.data import exif, picture_header
from densenet_keras.data.decoder import Decoder, UndecodableError
from densenet_keras.data.picture_header import JPEG, PNG, HeaderError
from densenet_keras.data.prepare.listing import MAX_FILE_BYTES


class Unusable(ValueError):
    """A file that no picture can be made of; the message is the reason."""


class Picture(NamedTuple):
    """A picture as it goes into a record."""

    encoded: bytes
    kind: str  # JPEG or PNG
    height: int  # pixels
    width: int  # pixels
    turned: bool  # it lay on its side, says its EXIF
    converted: bool  # it was neither JPEG nor PNG
    shrunk: bool


class Judge:
    """Judges pictures by TensorFlow's decoders; safe to call from several threads.

    Args:
        short_side: pixels to which the shorter side of larger pictures is shrunk; None leaves them.
    """

    def __init__(self, decoder: Decoder, short_side: Optional[int]) -> None:
        self._decoder = decoder
        self._short_side = short_side

    def picture(self, encoded: bytes) -> Picture:
        """What goes into the record: `encoded` itself wherever that can be.

        Only what lies on its side, is too large, or is neither JPEG nor PNG is written anew: JPEG as JPEG,
        all else as PNG, without loss.

        Raises:
            Unusable: empty, foreign, cut off or undecodable.
        """
        if len(encoded) > MAX_FILE_BYTES:
            raise Unusable(f"{len(encoded)} bytes, more than {MAX_FILE_BYTES // 1_000_000} MB")
        try:
            header = picture_header.read(encoded)
            orientation = exif.orientation(encoded)
            shrink = self._short_side is not None and min(header.height, header.width) > self._short_side
            if header.kind in (JPEG, PNG) and orientation == exif.UPRIGHT and not shrink:
                height, width = self._decoder.size(encoded, header)
                return Picture(encoded, header.kind, height, width, False, False, False)
            pixels = self._decoder.pixels(encoded, header)
        except (HeaderError, UndecodableError) as error:
            raise Unusable(str(error)) from error
        return self._written_anew(pixels, header.kind, orientation, shrink)

    def _written_anew(self, pixels: np.ndarray, kind: str, orientation: int, shrink: bool) -> Picture:
        pixels = exif.upright(pixels, orientation)
        height, width = pixels.shape[:2]
        if shrink:
            assert self._short_side is not None
            scale = self._short_side / min(height, width)
            height, width = round(height * scale), round(width * scale)
            pixels = self._decoder.resize(np.ascontiguousarray(pixels), height, width)
        encoded = self._decoder.jpeg(pixels) if kind == JPEG else self._decoder.png(pixels)
        return Picture(
            encoded, JPEG if kind == JPEG else PNG, height, width, orientation != exif.UPRIGHT,
            kind not in (JPEG, PNG), shrink,
        )  # fmt: skip
