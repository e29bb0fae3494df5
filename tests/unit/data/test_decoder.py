"""TensorFlow's decoders, one picture at a time: what comes out, what is refused, how much is held."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from densenet_keras.data import decoder as decoding
from densenet_keras.data import picture_header
from tests.support import records as fake

NOISE = np.random.RandomState(0).randint(0, 256, (9, 6, 3)).astype(np.uint8)
SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0:200:40j, 50:250:30j], 90.0), 2).astype(np.uint8)


@pytest.fixture(scope="module")
def decoder():
    made = decoding.Decoder()
    yield made
    made.close()


def pixels(decoder, encoded):
    return decoder.pixels(encoded, picture_header.read(encoded))


def shown(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


@pytest.mark.parametrize("encoded", [
    fake.encode(NOISE, "png"), fake.encode(NOISE, "bmp"), fake.encode(NOISE, "gif"),
    fake.encode(Image.fromarray(NOISE).convert("P"), "bmp"),
    fake.encode(Image.fromarray(NOISE).convert("RGBA"), "bmp"),
], ids=["png", "bmp", "gif", "bmp with a palette", "bmp with alpha"])  # fmt: skip
def test_lossless_kinds_are_decoded_to_what_is_shown(decoder, encoded):
    np.testing.assert_array_equal(pixels(decoder, encoded), shown(encoded))


def test_jpegs_keep_their_channels(decoder):
    grey = fake.encode(SMOOTH[:, :, 0])
    assert pixels(decoder, grey).shape == (40, 30, 1)
    cmyk = pixels(decoder, fake.encode(Image.fromarray(SMOOTH).convert("CMYK")))
    assert np.abs(cmyk.astype(int) - SMOOTH).mean() < 3


def test_of_a_gif_that_moves_only_the_first_frame_is_decoded(decoder):
    frames = [Image.fromarray(np.roll(NOISE, shift, 0)) for shift in range(30)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:], comment=b"x" * 300)
    moving = buffer.getvalue()
    assert Image.open(io.BytesIO(moving)).n_frames == 30
    np.testing.assert_array_equal(pixels(decoder, moving), shown(moving))
    assert len(decoding._first_frame(moving)) < len(moving) / 5


@pytest.mark.parametrize("kind", ["jpeg", "png", "bmp", "gif"])
def test_what_is_cut_off_is_refused(decoder, kind):
    whole = fake.encode(SMOOTH, kind)
    with pytest.raises(decoding.UndecodableError):
        pixels(decoder, whole[: len(whole) * 2 // 3])


def test_sizes_are_found_by_decoding_and_a_bad_picture_spoils_no_other(decoder):
    whole = [fake.encode(SMOOTH), fake.encode(SMOOTH, "png"), fake.encode(NOISE)]
    headers = [picture_header.read(one) for one in whole]
    assert decoder.sizes(whole, headers) == [(40, 30), (40, 30), (9, 6)]
    first, second, third = decoder.sizes([whole[0][:-60], whole[1], whole[2][:-60]], headers)
    assert second == (40, 30)
    assert isinstance(first, decoding.UndecodableError)
    assert isinstance(third, decoding.UndecodableError)
    assert decoder.sizes([], []) == []


def test_a_bmp_without_the_colours_it_uses_is_refused(decoder):
    whole = bytearray(fake.encode(Image.fromarray(NOISE[:, :, 0]), "bmp"))
    whole[14:18] = (1060).to_bytes(4, "little")
    with pytest.raises((decoding.UndecodableError, picture_header.HeaderError)):
        pixels(decoder, bytes(whole))


def test_smaller_is_what_a_good_resizer_makes_of_it(decoder):
    ours = decoder.resize(SMOOTH, 20, 15).astype(int)
    theirs = np.asarray(Image.fromarray(SMOOTH).resize((15, 20), Image.BILINEAR)).astype(int)
    assert np.abs(ours - theirs).max() <= 1


def test_what_is_encoded_is_decoded_again(decoder):
    np.testing.assert_array_equal(shown(decoder.png(NOISE[::-1])), NOISE[::-1])
    assert np.abs(shown(decoder.jpeg(SMOOTH)).astype(int) - SMOOTH).mean() < 2
    assert Image.open(io.BytesIO(decoder.jpeg(SMOOTH[:, :, :1]))).mode == "L"


def test_threads_wait_until_the_pixels_fit():
    budget, inside = decoding._PixelBudget(10), []
    started = threading.Event()

    def large():
        started.set()
        with budget.taking(1000):
            inside.append("large")

    with budget.taking(4), budget.taking(6):
        thread = threading.Thread(target=large)
        thread.start()
        started.wait()
        assert inside == []
    thread.join(10)
    assert inside == ["large"]
