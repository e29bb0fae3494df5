"""Every image format decodes, crops follow TensorFlow's law, and seeds decide all of it."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from densenet_keras.data import images as preprocessing
from tests.support import plain_input
from tests.support import records as fake


def scene(height, width):
    """A smooth RGB picture: survives JPEG and differs in every place."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack(
        [255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1), 128 + 80 * np.sin(x / 9.0 + y / 7.0)],
        axis=2,
    ).astype(np.uint8)


class Runner:
    """Runs one graph function over many inputs."""

    def __init__(self, build, *dtypes):
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.inputs = [tf.compat.v1.placeholder(dtype, shape) for dtype, shape in dtypes]
            self.outputs = build(*self.inputs)
        self.session = tf.compat.v1.Session(graph=self.graph)

    def __call__(self, *values):
        return self.session.run(self.outputs, dict(zip(self.inputs, values)))


ENCODED, SEEDS = (tf.string, []), (tf.int64, [2])


def train_runner(size=24, min_crop_area=0.08, flip=True):
    return Runner(
        lambda encoded, seeds: preprocessing.decode_train(encoded, seeds, size, min_crop_area, flip),
        ENCODED,
        SEEDS,
    )


@pytest.fixture(scope="module")
def decode_train():
    return train_runner()


@pytest.fixture(scope="module")
def decode_eval():
    return Runner(lambda encoded: preprocessing.decode_eval(encoded, 32), ENCODED)


PICTURE = scene(60, 80)
GREY = np.asarray(Image.fromarray(PICTURE).convert("L"))
ALPHA = np.dstack([PICTURE, np.full((60, 80), 200, np.uint8)])
PALETTE = Image.fromarray(PICTURE).quantize(64)
COARSE = np.asarray(PALETTE.convert("RGB"))
FORMATS = {
    "jpeg": (fake.encode(PICTURE), PICTURE),
    "progressive jpeg": (fake.encode(PICTURE, progressive=True), PICTURE),
    "grey jpeg": (fake.encode(GREY), np.dstack([GREY] * 3)),
    "cmyk jpeg": (fake.encode(Image.fromarray(PICTURE).convert("CMYK")), PICTURE),
    "png": (fake.encode(PICTURE, "png"), PICTURE),
    "grey png": (fake.encode(GREY, "png"), np.dstack([GREY] * 3)),
    "alpha png": (fake.encode(ALPHA, "png"), PICTURE),
    "palette png": (fake.encode(PALETTE, "png"), COARSE),
}


def reference_eval(pixels, size):
    """Resize the short side, cut out the centre, with Pillow."""
    height, width = pixels.shape[:2]
    short = round(size * 256 / 224)
    scale = short / min(height, width)
    resized = Image.fromarray(pixels).resize(
        (int(np.rint(width * scale)), int(np.rint(height * scale))), Image.BILINEAR
    )
    top, left = (resized.height - size) // 2, (resized.width - size) // 2
    return np.asarray(resized)[top : top + size, left : left + size]


@pytest.mark.parametrize("name", FORMATS)
def test_eval_crops_the_centre_of_every_format(decode_eval, name):
    encoded, pixels = FORMATS[name]
    image = decode_eval(encoded)
    assert image.dtype == np.uint8
    assert image.shape == (32, 32, 3)
    difference = np.abs(image.astype(int) - reference_eval(pixels, 32))
    assert difference.mean() < 4  # Pillow smooths when it shrinks
    assert np.percentile(difference, 99) < 25


@pytest.mark.parametrize("shape", [(60, 80), (80, 60), (40, 40), (33, 300), (20, 31), (1, 1), (2, 5)])
def test_eval_keeps_the_aspect_ratio_at_any_size(decode_eval, shape):
    pixels = scene(*shape)
    image = decode_eval(fake.encode(pixels, "png"))
    assert image.shape == (32, 32, 3)
    if min(shape) >= 20:
        assert np.abs(image.astype(int) - reference_eval(pixels, 32)).mean() < 3


def test_eval_of_224_resizes_to_256():
    runner = Runner(lambda encoded: preprocessing.decode_eval(encoded, 224), ENCODED)
    pixels = scene(256, 300)  # no resampling at all: the crop must be exact
    np.testing.assert_array_equal(runner(fake.encode(pixels, "png")), pixels[16:240, 38:262])


@pytest.mark.parametrize("name", FORMATS)
def test_training_crops_show_the_same_place_in_every_format(decode_train, name):
    encoded, pixels = FORMATS[name]
    lossless = fake.encode(pixels, "png")
    for draw in range(4):
        image, expected = decode_train(encoded, [0, draw]), decode_train(lossless, [0, draw])
        assert np.abs(image.astype(int) - expected).mean() < 5


def test_jpeg_is_cropped_as_it_is_decoded():
    """A crop of the decoded whole and the fused decode-and-crop agree, so the window is the same."""
    runner = train_runner(size=24, flip=False)
    encoded = fake.encode(PICTURE, subsampling=0)
    whole = Runner(lambda data: tf.image.decode_jpeg(data, channels=3), ENCODED)(encoded)
    lossless = fake.encode(whole, "png")
    for draw in range(6):
        fused = runner(encoded, [3, draw]).astype(int)
        assert np.abs(fused - runner(lossless, [3, draw])).max() <= 2


def test_seed_pairs_decide_crop_and_flip(decode_train):
    encoded = FORMATS["jpeg"][0]
    first = [decode_train(encoded, [1, draw]) for draw in range(5)]
    again = [decode_train(encoded, [1, draw]) for draw in range(5)]
    other = [decode_train(encoded, [2, draw]) for draw in range(5)]
    np.testing.assert_array_equal(first, again)
    assert len({image.tobytes() for image in first + other}) == 10


def test_flips_are_drawn_per_image():
    runner = train_runner(size=24, min_crop_area=1.0)
    encoded = FORMATS["png"][0]
    plain = train_runner(size=24, min_crop_area=1.0, flip=False)(encoded, [0, 0])
    flipped = 0
    for draw in range(200):
        image = runner(encoded, [5, draw])
        if not np.array_equal(image, plain):
            np.testing.assert_array_equal(image, plain[:, ::-1])
            flipped += 1
    assert 70 <= flipped <= 130  # 100 expected, standard deviation 7


def test_whole_image_when_the_crop_may_not_shrink():
    image = train_runner(size=60, min_crop_area=1.0, flip=False)(fake.encode(scene(60, 60), "png"), [0, 0])
    np.testing.assert_array_equal(image, scene(60, 60))


# The law of the crops


def stateless_windows(height, width, min_crop_area, count):
    seeds = np.stack([np.full(count, 11), np.arange(count)], axis=1)
    return windows_and_flips(np.full([count, 2], [height, width], np.int32), seeds, min_crop_area)[0]


def windows_and_flips(shapes, seeds, min_crop_area, at_once=50):
    """What `random_crops` says of many images, so many at a time."""
    runner = Runner(
        lambda sides, pairs: preprocessing.random_crops(sides, pairs, min_crop_area),
        (tf.int32, [at_once, 2]),
        (tf.int64, [at_once, 2]),
    )
    parts = [slice(first, first + at_once) for first in range(0, len(shapes), at_once)]
    windows, flips = zip(*(runner(shapes[part], seeds[part]) for part in parts))
    return np.concatenate(windows), np.concatenate(flips)


def reference_windows(height, width, min_crop_area, count):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:

        def window(_):
            begin, size, _ = tf.image.sample_distorted_bounding_box(
                [height, width, 3],
                tf.zeros([1, 0, 4]),
                seed=7,
                min_object_covered=0.0,
                aspect_ratio_range=(3 / 4, 4 / 3),
                area_range=(min_crop_area, 1.0),
                max_attempts=10,
                use_image_if_no_bounding_boxes=True,
            )
            return tf.concat([begin[:2], size[:2]], 0)

        return session.run(tf.map_fn(window, tf.range(count), dtype=tf.int32, parallel_iterations=1))


def largest_cdf_distance(first, second):
    """The Kolmogorov-Smirnov statistic."""
    places = np.union1d(first, second)
    cdfs = [np.searchsorted(np.sort(sample), places, "right") / len(sample) for sample in (first, second)]
    return np.abs(cdfs[0] - cdfs[1]).max()


@pytest.mark.parametrize(
    ("height", "width", "min_crop_area"),
    [(375, 500, 0.08), (500, 375, 0.08), (32, 32, 0.3), (40, 400, 0.08), (7, 5, 0.08)],
)
def test_crops_follow_the_law_of_sample_distorted_bounding_box(height, width, min_crop_area):
    count = 4000
    ours = stateless_windows(height, width, min_crop_area, count)
    theirs = reference_windows(height, width, min_crop_area, count)
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()
    critical = 1.95 * np.sqrt(2 / count)  # 0.1 % of equal laws exceed it
    for values in (
        lambda w: w[:, 0],
        lambda w: w[:, 1],
        lambda w: w[:, 2],
        lambda w: w[:, 3],
        lambda w: w[:, 2] * w[:, 3],
        lambda w: w[:, 3] / w[:, 2],
    ):
        assert largest_cdf_distance(values(ours), values(theirs)) < critical


def test_no_crop_is_smaller_than_asked():
    windows = stateless_windows(375, 500, 0.25, 2000)
    assert (windows[:, 2] * windows[:, 3] >= 0.25 * 375 * 500).all()


def test_image_that_admits_no_crop_is_taken_whole():
    windows = stateless_windows(10, 400, 0.08, 50)
    np.testing.assert_array_equal(windows, [[0, 0, 10, 400]] * 50)


# Crops of many images at once


SIDES = (1, 2, 3, 5, 17, 32, 100, 255, 256, 341, 375, 500, 1023, 4000, 65500)


@pytest.mark.parametrize("min_crop_area", [0.0, 0.08, 0.3, 0.999, 1.0])
@pytest.mark.parametrize("at_once", [1, 7, 32])
def test_an_image_has_the_same_crop_among_any_others(min_crop_area, at_once):
    random = np.random.RandomState(int(1000 * min_crop_area) + at_once)
    count = 10 * 7 * 32
    shapes = random.choice(SIDES, [count, 2]).astype(np.int32)
    passes, places = random.randint(0, 1 << 63, count), random.randint(0, 1 << 40, count)
    seeds = np.stack([passes, places], axis=1)
    windows, flips = windows_and_flips(shapes, seeds, min_crop_area, at_once)
    runner = Runner(
        lambda sides, pairs: tf.map_fn(
            lambda one: plain_input.crop(*one, min_crop_area), (sides, pairs), dtype=(tf.int32, tf.bool)
        ),
        (tf.int32, [None, 2]),
        (tf.int64, [None, 2]),
    )
    expected_windows, expected_flips = runner(shapes, seeds)
    np.testing.assert_array_equal(windows, expected_windows)
    np.testing.assert_array_equal(flips, expected_flips)


def test_square_roots_of_a_row_have_the_bits_that_they_have_alone():
    """A vector register holds four, eight or sixteen floats, a row ten: among others they would be mixed."""
    values = np.random.RandomState(0).uniform(0, 1e6, [33, 10]).astype(np.float32)
    alone = Runner(tf.sqrt, (tf.float32, [10]))
    expected = [alone(row) for row in values]
    np.testing.assert_array_equal(Runner(preprocessing._root, (tf.float32, [33, 10]))(values), expected)
    # Other optimizers are at work here:
    within = tf.data.Dataset.from_tensors(values).map(preprocessing._root)
    with tf.compat.v1.Session() as session:
        found = session.run(tf.compat.v1.data.make_one_shot_iterator(within).get_next())
    np.testing.assert_array_equal(found, expected)


# Normalisation and shapes


def test_normalize_is_zero_at_the_mean_and_one_a_deviation_off():
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        result = session.run(preprocessing.normalize(tf.constant([[[0, 128, 255]]], tf.uint8), "torch"))
    assert result.dtype == np.float32
    expected = [(0 / 255 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (255 / 255 - 0.406) / 0.225]
    np.testing.assert_allclose(result[0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("tf", [-1.0, 128 / 127.5 - 1, 1.0]),
        ("caffe", [255 - 103.939, 128 - 116.779, 0 - 123.68]),
        ("caffe_scaled", [0.017 * (255 - 103.939), 0.017 * (128 - 116.779), 0.017 * (0 - 123.68)]),
    ],
)
def test_each_preprocessing_has_its_order_of_channels_and_its_scale(kind, expected):
    """Red 0, green 128, blue 255; Caffe's networks see blue first."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        result = session.run(preprocessing.normalize(tf.constant([[[0, 128, 255]]], tf.uint8), kind))
    np.testing.assert_allclose(result[0, 0], expected, rtol=1e-5)


def test_shapes_are_static():
    with tf.Graph().as_default():
        encoded = tf.compat.v1.placeholder(tf.string, [])
        seeds = tf.compat.v1.placeholder(tf.int64, [2])
        train = preprocessing.decode_train(encoded, seeds, 24, 0.08, True)
        assert train.shape.as_list() == [24, 24, 3]
        assert preprocessing.decode_eval(encoded, 24).shape.as_list() == [24, 24, 3]
        assert train.dtype == tf.uint8


# Short cuts change no pixel


def noise(height, width):
    return np.random.RandomState(height * 1000 + width).randint(0, 256, (height, width, 3)).astype(np.uint8)


# Far fewer pixels than the result has, three times as many, and some about the limit between both ways.
@pytest.mark.parametrize(
    "shape", [(1, 1), (3, 50), (30, 31), (56, 56), (60, 65), (62, 63), (63, 63), (75, 100), (104, 99)]
)
@pytest.mark.parametrize("size", [56, 33])
def test_resizing_from_either_type_gives_the_same_pixels(shape, size):
    pixels = noise(*shape)
    runner = Runner(
        lambda image: (
            preprocessing._rounded(preprocessing._resized(image, tf.constant([size, size + 2]))),
            plain_input.resized(image, [size, size + 2]),
        ),
        (tf.uint8, [None, None, None]),
    )
    np.testing.assert_array_equal(*runner(pixels))


def plain_eval(image, size):
    """The whole image resized, then the centre cut out of it."""
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    short = round(size * 256 / 224)
    wanted = tf.cast(tf.math.rint(sides * (short / tf.reduce_min(sides))), tf.int32)
    corner = (wanted - size) // 2
    return tf.slice(plain_input.resized(image, wanted), tf.concat([corner, [0]], 0), [size, size, 3])


@pytest.mark.parametrize(
    "shape", [(64, 64), (64, 85), (86, 64), (64, 200), (63, 85), (65, 64), (94, 125), (200, 64), (9, 20)]
)
def test_eval_shows_the_pixels_of_the_whole_image_resized(shape):
    runner = Runner(
        lambda image: (preprocessing.eval_view(image, 56), plain_eval(image, 56)),
        (tf.uint8, [None, None, None]),
    )
    np.testing.assert_array_equal(*runner(noise(*shape)))
