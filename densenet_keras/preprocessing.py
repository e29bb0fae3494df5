"""Encoded image to network input: TensorFlow operations on one image, no files, no batching.

Images leave here as uint8 and are normalised inside the step: a quarter of the bytes between host
and device, and a quarter less host time, than normalised float32.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

# Mean and standard deviation of the ImageNet training images' RGB values in 0..1, as used by the
# torchvision, Keras ("torch" mode) and timm DenseNet weights.
IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)
IMAGENET_STD_RGB = (0.229, 0.224, 0.225)

MIN_ASPECT, MAX_ASPECT = 3.0 / 4.0, 4.0 / 3.0  # width / height of a training crop (Inception)
CROP_ATTEMPTS = 10
# Evaluation resizes the short side to 256 for an input of 224 (paper section 4.1), in proportion for others.
EVAL_RESIZE, EVAL_CROP = 256, 224

_JPEG_MAGIC = b"\xff\xd8\xff"


class Window(NamedTuple):
    """A rectangle in pixels, int32 scalars."""

    y: tf.Tensor
    x: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor


def normalize(images: tf.Tensor) -> tf.Tensor:
    """uint8 RGB [..., 3] as float32 with the ImageNet mean taken off, in standard deviations."""
    mean = tf.constant([255.0 * value for value in IMAGENET_MEAN_RGB], tf.float32)
    scale = tf.constant([1.0 / (255.0 * value) for value in IMAGENET_STD_RGB], tf.float32)
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
        encoded: string scalar; JPEG, PNG, GIF (first frame) or BMP, in colour, grey or CMYK.
        seed_pair: [2] int64; equal pairs give equal bits.
        min_crop_area: smallest share of the image area that the crop covers.
        horizontal_flip: whether every second image is mirrored, as the seed pair decides.
    """
    draws = tf.random.stateless_uniform([4 * CROP_ATTEMPTS + 1], seed_pair)
    is_jpeg = _is_jpeg(encoded)
    # extract_jpeg_shape fails on other formats; decode_and_crop_jpeg does not, and returns them uncropped.
    whole = tf.cond(
        is_jpeg, lambda: tf.zeros([0, 0, 3], tf.uint8), lambda: _decode_other(encoded)
    )
    shape = tf.cond(
        is_jpeg, lambda: tf.image.extract_jpeg_shape(encoded), lambda: tf.shape(whole)
    )
    window = random_window(
        shape[0], shape[1], tf.reshape(draws[:-1], [4, CROP_ATTEMPTS]), min_crop_area
    )
    crop = tf.cond(
        is_jpeg,
        # fancy_upscaling stays on: with it off, this op crashes the process.
        lambda: tf.image.decode_and_crop_jpeg(encoded, tf.stack(window), channels=3),
        lambda: tf.slice(
            whole, tf.stack([window.y, window.x, 0]), tf.stack([window.height, window.width, 3])
        ),
    )
    image = _resize(crop, tf.constant([image_size, image_size]))
    if horizontal_flip:
        image = tf.cond(draws[-1] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
    image.set_shape([image_size, image_size, 3])
    return image


def decode_eval(encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    """The centre of the image at its own aspect ratio: [image_size, image_size, 3] uint8.

    The short side is resized to 256/224 of `image_size` first; `encoded` as in `decode_train`.
    """
    image = tf.cond(
        _is_jpeg(encoded),
        lambda: tf.image.decode_jpeg(encoded, channels=3),
        lambda: _decode_other(encoded),
    )
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    short_side = round(image_size * EVAL_RESIZE / EVAL_CROP)
    resized_sides = tf.cast(tf.math.rint(sides * (short_side / tf.reduce_min(sides))), tf.int32)
    resized = _resize(image, resized_sides)
    corner = (resized_sides - image_size) // 2
    crop = tf.slice(resized, tf.concat([corner, [0]], 0), [image_size, image_size, 3])
    crop.set_shape([image_size, image_size, 3])
    return crop


def random_window(
    image_height: tf.Tensor, image_width: tf.Tensor, draws: tf.Tensor, min_crop_area: float
) -> Window:
    """A crop with the law of tf.image.sample_distorted_bounding_box, as a function of `draws`.

    That operation has no stateless form. Its law: aspect ratio uniform, then the height uniform
    among those that keep the area in bounds, then the place uniform, the last row and column of
    places left out. The first of ten attempts that fits counts; if none does, the whole image.

    Args:
        image_height, image_width: int32 scalars, in pixels.
        draws: [4, attempts] float32, uniform in [0, 1).
        min_crop_area: smallest share of the image area; at most all of it is taken.
    """
    if min_crop_area >= 1.0:
        zero = tf.zeros([], tf.int32)
        return Window(zero, zero, image_height, image_width)
    limit_height, limit_width = tf.cast(image_height, tf.float32), tf.cast(image_width, tf.float32)
    max_area = limit_height * limit_width
    min_area = max_area * min_crop_area
    aspect = MIN_ASPECT + draws[0] * (MAX_ASPECT - MIN_ASPECT)
    highest = tf.math.rint(tf.sqrt(max_area / aspect))
    highest = tf.minimum(highest, tf.floor((limit_width + 0.5) / aspect))
    highest -= tf.cast(tf.math.rint(highest * aspect) > limit_width, tf.float32)
    highest = tf.minimum(highest, limit_height)
    lowest = tf.minimum(tf.math.rint(tf.sqrt(min_area / aspect)), highest)
    height = lowest + tf.floor(draws[1] * (highest - lowest + 1.0))
    # Rounding may have left the area a little outside: try one row more, then one less.
    area = height * tf.math.rint(height * aspect)
    height += tf.cast(area < min_area, tf.float32)
    area = height * tf.math.rint(height * aspect)
    height -= tf.cast(area > max_area, tf.float32)
    width = tf.math.rint(height * aspect)
    area = height * width
    fits = (
        (area >= min_area) & (area <= max_area) & (height <= limit_height) & (width <= limit_width)
        & (width > 0.0)
    )
    y = tf.floor(draws[2] * (limit_height - height))
    x = tf.floor(draws[3] * (limit_width - width))
    attempts = tf.cast(tf.stack([y, x, height, width], axis=1), tf.int32)
    whole_image = tf.stack([0, 0, image_height, image_width])
    # The whole image stands behind the attempts and fits always.
    candidates = tf.concat([attempts, whole_image[tf.newaxis]], axis=0)
    first = tf.argmax(tf.cast(tf.concat([fits, [True]], axis=0), tf.int32), output_type=tf.int32)
    return Window(*tf.unstack(candidates[first]))


def _is_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return tf.equal(tf.strings.substr(encoded, 0, len(_JPEG_MAGIC)), _JPEG_MAGIC)


def _decode_other(encoded: tf.Tensor) -> tf.Tensor:
    """A PNG, GIF or BMP as [height, width, 3] uint8."""
    image = tf.image.decode_image(encoded, channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    return image


def _resize(image: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
    """Bilinear, pixel centres aligned, rounded to uint8 (tf.round with clipping costs 1 ms an image)."""
    resized = tf.compat.v1.image.resize_bilinear(image[tf.newaxis], sides, half_pixel_centers=True)
    return tf.cast(resized[0] + 0.5, tf.uint8)
