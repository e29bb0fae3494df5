"""Pictures as the network sees them."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from densenet_keras.data import images
from densenet_keras.prediction.reader import PictureReader, UnreadableError

SIDE = 32


@pytest.fixture(scope="module")
def reader():
    made = PictureReader(SIDE)
    yield made
    made.close()


def pixels(height=60, width=80):
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 3, columns * 3, rows + columns], axis=2).astype(np.uint8)


def encoded(array, kind, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def evaluated(data):
    """What evaluation makes of the bytes."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        return session.run(images.decode_eval(tf.constant(data), SIDE))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_has_the_very_pixels_of_evaluation(reader, kind, tmp_path):
    data = encoded(pixels(), kind)
    path = tmp_path / "picture"
    path.write_bytes(data)
    for given in (data, str(path)):
        np.testing.assert_array_equal(reader.read(given), evaluated(data))


@pytest.mark.parametrize("kind", ["BMP", "GIF"])
def test_other_formats_are_seen_as_their_pixels(reader, kind):
    image = Image.fromarray(pixels()).quantize(64) if kind == "GIF" else Image.fromarray(pixels())
    file = io.BytesIO()
    image.save(file, kind)
    np.testing.assert_array_equal(reader.read(file.getvalue()), reader.read(np.asarray(image.convert("RGB"))))


def test_an_array_is_seen_as_a_lossless_file_of_it(reader):
    np.testing.assert_array_equal(reader.read(pixels()), reader.read(encoded(pixels(), "PNG")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_a_camera_says_to_turn_is_turned(reader, orientation):
    """A file stored turned, with the note that undoes it, is seen as the upright one."""
    undo = {
        1: [],
        2: [Image.FLIP_LEFT_RIGHT],
        3: [Image.ROTATE_180],
        4: [Image.FLIP_TOP_BOTTOM],
        5: [Image.TRANSPOSE],
        6: [Image.ROTATE_90],
        7: [Image.TRANSVERSE],
        8: [Image.ROTATE_270],
    }
    stored = Image.fromarray(pixels())
    for turn in undo[orientation]:
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    stored.save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(reader.read(file.getvalue()), reader.read(pixels()))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"hello", "not a picture"),
        ("/nowhere/picture.jpg", "No such file"),
        (np.zeros([4, 4], np.uint8), r"must be \[height, width, 3\] uint8"),
        (np.zeros([4, 4, 3], np.float32), "float32"),
    ],
)
def test_what_cannot_be_read_is_said(reader, given, message):
    with pytest.raises(UnreadableError, match=message):
        reader.read(given)


def test_a_picture_that_is_cut_off_is_said(reader):
    noise = np.random.RandomState(0).randint(0, 256, [60, 80, 3]).astype(np.uint8)
    whole = encoded(noise, "PNG")
    with pytest.raises(UnreadableError):
        reader.read(whole[: len(whole) // 2])


@pytest.mark.parametrize("value", [None, 0, Image.new("RGB", (8, 8))], ids=["none", "number", "pillow"])
def test_what_is_not_a_picture_at_all_is_said_with_what_would_be_one(reader, value):
    with pytest.raises(UnreadableError, match=f"type {type(value).__name__}; it must be a path, .* an array"):
        reader.read(value)
