"""What becomes of each kind of file: kept byte for byte, written anew, or left out with a reason."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from densenet_keras.data.decoder import Decoder
from densenet_keras.data.prepare.pictures import Judge, Unusable
from tests.support import records as fake

SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0:200:60j, 50:250:90j], 90.0), 2).astype(np.uint8)
IMAGE = Image.fromarray(SMOOTH)


@pytest.fixture(scope="module")
def decoder():
    made = Decoder(quality=95)
    yield made
    made.close()


@pytest.fixture(scope="module")
def judge(decoder):
    return Judge(decoder, None)


def exif(orientation, image=IMAGE, kind="jpeg"):
    block = Image.Exif()
    block[0x0112] = orientation
    return fake.encode(image, kind, exif=block.tobytes())


def picture_of(judge, encoded):
    (made,) = judge.pictures([encoded])
    return made


def viewer(encoded):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")).astype(int)


@pytest.mark.parametrize(("encoded", "kind"), [
    (fake.encode(IMAGE), "JPEG"),
    (fake.encode(IMAGE, progressive=True), "JPEG"),
    (fake.encode(IMAGE.convert("L")), "JPEG"),
    (fake.encode(IMAGE.convert("CMYK")), "JPEG"),
    (fake.encode(IMAGE) + b"\0" * 99, "JPEG"),
    (exif(1), "JPEG"),
    (fake.encode(IMAGE, "png"), "PNG"),
    (fake.encode(IMAGE.convert("P"), "png"), "PNG"),
    (fake.encode(IMAGE.convert("RGBA"), "png"), "PNG"),
    (fake.encode(IMAGE.convert("1"), "png"), "PNG"),
], ids=lambda value: "" if isinstance(value, bytes) else value)  # fmt: skip
def test_what_training_decodes_is_kept_byte_for_byte(judge, encoded, kind):
    picture = picture_of(judge, encoded)
    assert picture == (encoded, kind, 60, 90, False, False, False)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_picture_on_its_side_is_turned_upright(judge, orientation):
    encoded = exif(orientation)
    picture = picture_of(judge, encoded)
    assert picture.turned
    assert picture.kind == "JPEG"
    assert (picture.height, picture.width) == ((60, 90) if orientation < 5 else (90, 60))
    assert Image.open(io.BytesIO(picture.encoded)).getexif().get(0x0112, 1) == 1
    difference = np.abs(viewer(picture.encoded) - viewer(encoded))
    assert difference.shape == (picture.height, picture.width, 3)
    assert difference.mean() < 2


def test_a_grey_picture_on_its_side_stays_grey(judge):
    picture = picture_of(judge, exif(6, IMAGE.convert("L")))
    assert Image.open(io.BytesIO(picture.encoded)).mode == "L"


def test_a_png_on_its_side_is_turned_without_loss(judge):
    encoded = exif(8, kind="png")
    picture = picture_of(judge, encoded)
    assert picture.kind == "PNG"
    np.testing.assert_array_equal(viewer(picture.encoded), viewer(encoded))


@pytest.mark.parametrize("kind", ["bmp", "gif"])
def test_bmp_and_gif_become_png_without_loss(judge, kind):
    encoded = fake.encode(IMAGE, kind)
    picture = picture_of(judge, encoded)
    assert (picture.kind, picture.converted, picture.turned) == ("PNG", True, False)
    np.testing.assert_array_equal(viewer(picture.encoded), viewer(encoded))


def test_larger_pictures_are_shrunk_to_the_short_side(decoder):
    judge = Judge(decoder, 32)
    for encoded, kind in ((fake.encode(IMAGE), "JPEG"), (fake.encode(IMAGE, "png"), "PNG")):
        picture = picture_of(judge, encoded)
        assert (picture.kind, picture.shrunk, picture.height, picture.width) == (kind, True, 32, 48)
        theirs = np.asarray(IMAGE.resize((48, 32), Image.BILINEAR)).astype(int)
        assert np.abs(viewer(picture.encoded) - theirs).mean() < 2
    small = fake.encode(IMAGE.resize((32, 40)))
    assert picture_of(judge, small).encoded == small


def test_turned_and_shrunk_at_once(decoder):
    picture = picture_of(Judge(decoder, 32), exif(6))
    assert (picture.height, picture.width, picture.turned, picture.shrunk) == (48, 32, True, True)


@pytest.mark.parametrize(("encoded", "reason"), [
    (b"", "empty"),
    (b"<html><body>404", "HTML"),
    (fake.encode(IMAGE, "webp"), "WebP"),
    (fake.encode(IMAGE)[:-40], ""),
    (fake.encode(IMAGE)[:200], ""),
    (fake.encode(IMAGE, "png")[:-200], ""),
    (fake.encode(IMAGE, "png")[:12], "cut off"),
    (fake.encode(IMAGE, "bmp")[:-200], ""),
    (b"\xff\xd8\xff\xe0", "no frame header"),
], ids=range(9))  # fmt: skip
def test_what_cannot_be_used_has_a_reason(judge, encoded, reason):
    sound = fake.encode(IMAGE)
    first, unusable, last = judge.pictures([sound, encoded, sound])
    assert first.encoded == last.encoded == sound
    assert isinstance(unusable, Unusable)
    assert reason in str(unusable)
    assert 5 < len(str(unusable)) < 200
    assert "\n" not in str(unusable)
    assert "Node" not in str(unusable)
