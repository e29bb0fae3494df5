"""What a file says of itself, against Pillow; what is no picture is named."""

import contextlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from densenet_keras.data import picture_header
from tests.support import records as fake

PIXELS = np.random.RandomState(0).randint(0, 256, (7, 5, 3)).astype(np.uint8)
COLOUR = Image.fromarray(PIXELS)


@pytest.mark.parametrize(("encoded", "header"), [
    (fake.encode(PIXELS), ("JPEG", 7, 5, 3)),
    (fake.encode(PIXELS, progressive=True), ("JPEG", 7, 5, 3)),
    (fake.encode(PIXELS[:, :, 0]), ("JPEG", 7, 5, 1)),
    (fake.encode(COLOUR.convert("CMYK")), ("JPEG", 7, 5, 4)),
    (fake.encode(COLOUR, "png"), ("PNG", 7, 5, 3)),
    (fake.encode(COLOUR.convert("LA"), "png"), ("PNG", 7, 5, 2)),
    (fake.encode(COLOUR.convert("P"), "png"), ("PNG", 7, 5, 3)),
    (fake.encode(COLOUR, "gif"), ("GIF", 7, 5, 3)),
    (fake.encode(COLOUR, "bmp"), ("BMP", 7, 5, 3)),
    (fake.encode(COLOUR.convert("P"), "bmp"), ("BMP", 7, 5, 1)),
])  # fmt: skip
def test_format_size_and_channels(encoded, header):
    assert picture_header.read(encoded) == header


def png_of(width, height):
    whole = bytearray(fake.encode(PIXELS, "png"))
    whole[16:24] = struct.pack(">II", width, height)
    whole[29:33] = struct.pack(">I", zlib.crc32(bytes(whole[12:29])))
    return bytes(whole)


@pytest.mark.parametrize(("encoded", "reason"), [
    (b"", "empty"),
    (b"hello, world", "not a picture"),
    (fake.encode(COLOUR, "webp"), "WebP"),
    (fake.encode(COLOUR, "tiff"), "TIFF"),
    (b"\0\0\0\x18ftypheic", "HEIC"),
    (b"  <!DOCTYPE html><p>404", "HTML"),
    (fake.encode(PIXELS)[:24], "cut off"),
    (fake.encode(PIXELS, "png")[:20], "cut off"),
    (fake.encode(PIXELS, "png")[:30], "cut off"),
    (fake.encode(PIXELS, "png")[:17] + b"\x99" + fake.encode(PIXELS, "png")[18:], "damaged"),
    (png_of(0, 5), "0x5 pixels"),
    (png_of(100_000, 100_000), "more than 200 million"),
    (fake.encode(COLOUR.convert("1"), "bmp"), "1 bits a pixel"),
    (fake.encode(COLOUR, "gif")[:8], "cut off"),
])  # fmt: skip
def test_what_cannot_be_decoded_is_named(encoded, reason):
    with pytest.raises(picture_header.HeaderError, match=reason):
        picture_header.read(encoded)


def test_damaged_headers_never_raise_anything_else():
    random = np.random.RandomState(1)
    for kind in ("jpeg", "png", "gif", "bmp"):
        whole = fake.encode(COLOUR, kind)
        for _ in range(500):
            damaged = bytearray(whole[: random.randint(0, len(whole))])
            if damaged:
                damaged[random.randint(len(damaged))] = random.randint(256)
            with contextlib.suppress(picture_header.HeaderError):
                picture_header.read(bytes(damaged))
