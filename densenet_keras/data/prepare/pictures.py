"""What becomes of one picture: kept byte for byte, written anew, or left out with a reason."""

from __future__ import annotations

from typing import Any, List, NamedTuple, Optional, Sequence, Union

import numpy as np

from densenet_keras.data import exif, picture_header
from densenet_keras.data.decoder import Decoder, UndecodableError
from densenet_keras.data.picture_header import JPEG, PNG, Header, HeaderError
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

    def pictures(self, encoded: Sequence[bytes]) -> List[Union[Picture, Unusable]]:
        """What goes into the records: the bytes themselves wherever that can be.

        Only what lies on its side, is too large, or is neither JPEG nor PNG is written anew: JPEG as JPEG,
        all else as PNG, without loss. In place of what is empty, foreign, cut off or undecodable stands an
        Unusable.
        """
        made: List[Any] = [self._first_look(one) for one in encoded]
        kept = [place for place, one in enumerate(made) if isinstance(one, Header)]
        sizes = self._decoder.sizes([encoded[place] for place in kept], [made[place] for place in kept])
        for place, size in zip(kept, sizes):
            if isinstance(size, UndecodableError):
                made[place] = Unusable(str(size))
            else:
                made[place] = Picture(encoded[place], made[place].kind, *size, False, False, False)
        return made

    def _first_look(self, encoded: bytes) -> Union[Header, Picture, Unusable]:
        """The header of a picture whose bytes are kept if they can be decoded; else what becomes of it."""
        if len(encoded) > MAX_FILE_BYTES:
            return Unusable(f"{len(encoded)} bytes, more than {MAX_FILE_BYTES // 1_000_000} MB")
        try:
            header = picture_header.read(encoded)
            orientation = exif.orientation(encoded)
            shrink = self._short_side is not None and min(header.height, header.width) > self._short_side
            if header.kind in (JPEG, PNG) and orientation == exif.UPRIGHT and not shrink:
                return header
            pixels = self._decoder.pixels(encoded, header)
        except (HeaderError, UndecodableError) as error:
            return Unusable(str(error))
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
