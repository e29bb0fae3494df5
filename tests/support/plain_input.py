"""What training shows of one image, by the plainest operations: what short cuts must equal bit for bit."""

import tensorflow as tf

JPEG_MAGIC = b"\xff\xd8\xff"


def train_image(encoded, seed_pair, image_size, min_crop_area, horizontal_flip):
    """The crop of one encoded image, resized, perhaps mirrored: [image_size, image_size, 3] uint8."""
    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, 3), JPEG_MAGIC)
    whole = tf.image.decode_png(encoded, channels=3)  # decodes JPEG as well
    window, flip = crop(tf.shape(whole)[:2], seed_pair, min_crop_area)
    part = tf.cond(
        is_jpeg,
        lambda: tf.image.decode_and_crop_jpeg(encoded, window, channels=3),
        lambda: tf.slice(whole, tf.concat([window[:2], [0]], 0), tf.concat([window[2:], [3]], 0)),
    )
    image = resized(part, [image_size, image_size])
    return tf.cond(flip & horizontal_flip, lambda: image[:, ::-1], lambda: image)


def resized(image, sides):
    """One resizing of the bytes, rounded half up."""
    floats = tf.compat.v1.image.resize_bilinear(image[tf.newaxis], sides, half_pixel_centers=True)[0]
    return tf.cast(floats + 0.5, tf.uint8)


def crop(shape, seed_pair, min_crop_area):
    """Window and mirroring of one image, from its own ten attempts alone."""
    *draws, flips = tf.unstack(tf.random.stateless_uniform([5, 10], seed_pair))
    whole = tf.concat([[0, 0], shape], axis=0)
    if min_crop_area >= 1.0:
        return whole, flips[0] < 0.5
    limit_height, limit_width = tf.unstack(tf.cast(shape, tf.float32), num=2)
    min_area = limit_height * limit_width * max(min_crop_area, 1e-9)
    aspect = 3.0 / 4.0 + draws[0] * (4.0 / 3.0 - 3.0 / 4.0)
    highest = tf.minimum(limit_height, tf.floor((limit_width + 0.5) / aspect))
    lowest = tf.minimum(highest, tf.math.rint(tf.sqrt(min_area / aspect)))
    height = lowest + tf.floor(draws[1] * (highest - lowest + 1.0))
    height += tf.cast(height * tf.math.rint(height * aspect) < min_area, tf.float32)
    width = tf.math.rint(height * aspect)
    fits = (height * width >= min_area) & (height <= limit_height) & (width <= limit_width)
    y = tf.floor(draws[2] * (limit_height - height))
    x = tf.floor(draws[3] * (limit_width - width))
    attempts = tf.cast(tf.stack([y, x, height, width], axis=1), tf.int32)
    first = tf.argmax(tf.cast(tf.concat([fits, [True]], axis=0), tf.int32), output_type=tf.int32)
    return tf.concat([attempts, whole[tf.newaxis]], axis=0)[first], flips[0] < 0.5
