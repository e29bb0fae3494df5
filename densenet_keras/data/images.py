"""Encoded image to network input: TensorFlow operations on one image, no files, no batching.

Images leave here as uint8 and are normalised inside the step: a quarter of the bytes between host
and device, and a quarter less host time, than normalised float32.
"""

from __future__ import annotations

from typing import Optional, Sequence, Tuple

import tensorflow as tf

from densenet_keras.data.picture_header import JPEG_MAGIC
from densenet_keras.network.preprocessing import PREPROCESSINGS

MIN_ASPECT, MAX_ASPECT = 3.0 / 4.0, 4.0 / 3.0  # width / height of a training crop (Inception)
CROP_ATTEMPTS = 10
# Evaluation resizes the short side to 256 for an input of 224 (paper section 4.1), in proportion for others.
EVAL_RESIZE, EVAL_CROP = 256, 224

# Random numbers for an image: four for each attempt at a crop, then the mirroring. Fewer would be other ones.
_DRAWS = (5, CROP_ATTEMPTS)


def normalize(images: tf.Tensor, preprocessing: str) -> tf.Tensor:
    """uint8 RGB [..., 3] as float32, as networks of that preprocessing want it; see `PREPROCESSINGS`."""
    wanted = PREPROCESSINGS[preprocessing]
    if wanted.channels == "BGR":
        images = tf.reverse(images, [-1])
    mean = tf.constant(wanted.mean, tf.float32)
    scale = tf.constant([1.0 / value for value in wanted.deviation], tf.float32)
    return (tf.cast(images, tf.float32) - mean) * scale


def decode_train(
    encoded: tf.Tensor,
    seed_pair: tf.Tensor,
    image_size: int,
    min_crop_area: float,
    horizontal_flip: bool,
) -> tf.Tensor:
    """A random crop of the image, resized, perhaps mirrored: [image_size, image_size, 3] uint8.

    Args:
        encoded: string scalar; JPEG or PNG, in colour, grey or CMYK.
        seed_pair: [2] int64; equal pairs give equal bits.
        min_crop_area: smallest share of the image area that the crop covers.
        horizontal_flip: whether every second image is mirrored, as the seed pair decides.
    """
    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, len(JPEG_MAGIC)), JPEG_MAGIC)
    shape = tf.cond(is_jpeg, lambda: tf.image.extract_jpeg_shape(encoded)[:2], lambda: _png_shape(encoded))
    windows, flips = random_crops(shape[tf.newaxis], seed_pair[tf.newaxis], min_crop_area)
    return decode_crop(encoded, is_jpeg, windows[0], flips[0] if horizontal_flip else None, image_size)


def random_crops(
    shapes: tf.Tensor, seed_pairs: tf.Tensor, min_crop_area: float
) -> Tuple[tf.Tensor, tf.Tensor]:
    """Windows of n images, as `random_windows` gives them, and whether to mirror each: [n] bool.

    Every image gets what it would get by itself.

    Args:
        shapes: [n, 2] int32; heights and widths in pixels.
        seed_pairs: [n, 2] int64; n is static.
    """
    # As tf.random.stateless_uniform, which goes on to multiply by 1 and to add 0.
    rows = [
        tf.raw_ops.StatelessRandomUniform(shape=_DRAWS, seed=pair, dtype=tf.float32)
        for pair in tf.unstack(seed_pairs)
    ]
    *draws, flips = tf.unstack(tf.stack(rows), axis=1)
    return random_windows(shapes, draws, min_crop_area), flips[:, 0] < 0.5


def decode_crop(
    encoded: tf.Tensor, is_jpeg: tf.Tensor, window: tf.Tensor, flip: Optional[tf.Tensor], image_size: int
) -> tf.Tensor:
    """A window of the image, resized, mirrored if `flip` says so: [image_size, image_size, 3] uint8.

    Args:
        encoded: string scalar; JPEG or PNG, in colour, grey or CMYK.
        is_jpeg: bool scalar.
        window: [4] int32; y, x, height, width.
        flip: bool scalar, or None for no mirrored image ever.
    """
    crop = tf.cond(
        is_jpeg,
        # Returns other formats uncropped, without an error. fancy_upscaling stays on: with it off,
        # this operation crashes the process.
        lambda: tf.image.decode_and_crop_jpeg(encoded, window, channels=3),
        lambda: _cut(tf.image.decode_png(encoded, channels=3), window),
    )
    image = _rounded(_resized(crop, tf.constant([image_size, image_size])))
    if flip is not None:
        image = tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)
    image.set_shape([image_size, image_size, 3])
    return image


def decode_eval(encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    """The centre of the image at its own aspect ratio: [image_size, image_size, 3] uint8.

    The short side is resized to 256/224 of `image_size` first; `encoded` as in `decode_train`.
    """
    return eval_view(tf.image.decode_jpeg(encoded, channels=3), image_size)  # decodes PNG as well


def eval_view(image: tf.Tensor, image_size: int) -> tf.Tensor:
    """What evaluation shows of a decoded image [height, width, 3] uint8; see `decode_eval`."""
    given = tf.shape(image)[:2]
    sides = tf.cast(given, tf.float32)
    short_side = round(image_size * EVAL_RESIZE / EVAL_CROP)
    wanted = tf.cast(tf.math.rint(sides * (short_side / tf.reduce_min(sides))), tf.int32)
    corner = (wanted - image_size) // 2
    window = tf.concat([corner, [image_size, image_size]], 0)
    crop = tf.cond(
        tf.reduce_all(tf.equal(given, wanted)),
        lambda: _cut(image, window),  # as `prepare` has left it: nothing is resized
        lambda: _rounded(_cut(_resized(image, wanted), window)),
    )
    crop.set_shape([image_size, image_size, 3])
    return crop


def random_windows(shapes: tf.Tensor, draws: Sequence[tf.Tensor], min_crop_area: float) -> tf.Tensor:
    """Crops with the law of tf.image.sample_distorted_bounding_box, as a function of `draws`.

    That operation has no stateless form. Its law: aspect ratio uniform, then the height uniform
    among those that keep the area in bounds, then the place uniform, the last row and column of
    places left out. The first of ten attempts that fits counts; if none does, the whole image.

    Args:
        shapes: [n, 2] int32; heights and widths of the images in pixels.
        draws: four times [n, CROP_ATTEMPTS] float32, uniform in [0, 1).
        min_crop_area: smallest share of the image area; at most all of it is taken.

    Returns:
        [n, 4] int32: y, x, height, width.
    """
    whole = tf.concat([tf.zeros_like(shapes), shapes], axis=1)
    if min_crop_area >= 1.0:
        return whole
    limit_height, limit_width = tf.split(tf.cast(shapes, tf.float32), 2, axis=1)
    min_area = limit_height * limit_width * max(min_crop_area, 1e-9)  # never an empty crop
    aspect = MIN_ASPECT + draws[0] * (MAX_ASPECT - MIN_ASPECT)
    # Both sides within the image keep the area within it, too.
    highest = tf.minimum(limit_height, tf.floor((limit_width + 0.5) / aspect))
    lowest = tf.minimum(highest, tf.math.rint(_root(min_area / aspect)))
    height = lowest + tf.floor(draws[1] * (highest - lowest + 1.0))
    # Rounding may have left the area a little too small: one row more then.
    height += tf.cast(height * tf.math.rint(height * aspect) < min_area, tf.float32)
    width = tf.math.rint(height * aspect)
    fits = (height * width >= min_area) & (height <= limit_height) & (width <= limit_width)
    y = tf.floor(draws[2] * (limit_height - height))
    x = tf.floor(draws[3] * (limit_width - width))
    # The whole image stands behind the attempts and fits always.
    attempts = tf.cast(tf.stack([y, x, height, width], axis=2), tf.int32)
    attempts = tf.concat([attempts, whole[:, tf.newaxis]], axis=1)
    fits = tf.concat([fits, tf.ones_like(fits[:, :1])], axis=1)
    first = tf.argmax(tf.cast(fits, tf.int32), axis=1, output_type=tf.int32)
    return tf.gather_nd(attempts, tf.stack([tf.range(tf.size(first)), first], axis=1))


def _root(values: tf.Tensor) -> tf.Tensor:
    """Square roots of [n, attempts] float32, row by row.

    TensorFlow approximates those that fill a vector register and computes the rest of a tensor exactly: over
    several rows at once, an image's crop would depend on the batch that it is in. (Not with tf.split and
    tf.concat: TensorFlow's optimizer makes one square root of those.)
    """
    return tf.stack([tf.sqrt(row) for row in tf.unstack(values)])


def _png_shape(encoded: tf.Tensor) -> tf.Tensor:
    """Height and width from a PNG's header chunk, which comes first: [2] int32."""
    width_height = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)
    return tf.reverse(width_height, [0])


def _cut(image: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    return tf.slice(image, tf.concat([window[:2], [0]], 0), tf.concat([window[2:], [3]], 0))


def _resized(image: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
    """Bilinear, pixel centres aligned: float32."""

    def resized(pixels: tf.Tensor) -> tf.Tensor:
        return tf.compat.v1.image.resize_bilinear(pixels[tf.newaxis], sides, half_pixel_centers=True)[0]

    # The same numbers either way. From float32 the operation needs 0.44 of the time. The cast goes over all
    # pixels of `image`: from 1.35 of them for each new one on, it takes more than that saves.
    few = 4 * tf.reduce_prod(tf.shape(image)[:2]) < 5 * tf.reduce_prod(sides)
    return tf.cond(few, lambda: resized(tf.cast(image, tf.float32)), lambda: resized(image))


def _rounded(image: tf.Tensor) -> tf.Tensor:
    """As uint8 (tf.round with clipping costs 1 ms an image)."""
    return tf.cast(image + 0.5, tf.uint8)
