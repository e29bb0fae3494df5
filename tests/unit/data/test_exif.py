"""The rotation that cameras note, against Pillow's reading of it."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from densenet_keras.data import exif
from tests.support import records as fake

PIXELS = np.random.RandomState(0).randint(0, 256, (7, 5, 3)).astype(np.uint8)


def noted(orientation, kind="png", **options):
    block = Image.Exif()
    block[0x0112] = orientation
    return fake.encode(PIXELS, kind, exif=block.tobytes(), **options)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_turned_as_a_viewer_turns_them(orientation):
    encoded = noted(orientation)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))))
    assert exif.orientation(encoded) == orientation
    np.testing.assert_array_equal(exif.upright(PIXELS, orientation), shown)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["II", "MM"])
def test_jpegs_of_both_byte_orders_are_read(orientation, order):
    entry = {
        "II": b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0%c\0\0\0\0\0\0\0",
        "MM": b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0%c\0\0\0\0\0\0",
    }[order] % orientation
    plain = fake.encode(PIXELS)
    xmp = b"\xff\xe1\0\x08http:\0"
    segment = b"Exif\0\0" + entry
    jpeg = plain[:2] + xmp + b"\xff\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + plain[2:]
    assert exif.orientation(jpeg) == orientation
    assert Image.open(io.BytesIO(jpeg)).getexif()[0x0112] == orientation


def test_a_grey_picture_is_turned_too():
    assert exif.upright(PIXELS[:, :, 0], 6).shape == (5, 7)


@pytest.mark.parametrize("encoded", [
    b"", b"\xff\xd8", b"GIF89a", fake.encode(PIXELS), fake.encode(PIXELS, "png"), noted(0), noted(9),
    noted(77, "jpeg"),
])  # fmt: skip
def test_no_note_or_one_without_sense_is_upright(encoded):
    assert exif.orientation(encoded) == 1


def test_damaged_notes_never_raise():
    random = np.random.RandomState(1)
    for kind in ("jpeg", "png"):
        whole = noted(6, kind)
        for end in range(0, 120):
            assert exif.orientation(whole[:end]) in range(1, 9)
        for _ in range(500):
            damaged = bytearray(whole)
            damaged[random.randint(2, 100)] = random.randint(256)
            assert exif.orientation(bytes(damaged)) in range(1, 9)
