"""Pictures to compare on, made up from a seed: colours that flow into each other, and noise."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from densenet_keras.backends import cpu
from densenet_keras.data.images import decode_eval
from densenet_keras.exports.base import Pictures
from densenet_keras.settings.config import ModelConfig
from densenet_keras.training.steps import network_input

COUNT = 4
_CONTROL_POINTS = 5  # colours along a side
_NOISE = 20.0  # standard deviation, in pixel values


def make(image_size: int, network: ModelConfig) -> Pictures:
    """`COUNT` pictures of several shapes, all larger than the network's input."""
    random = np.random.RandomState(0)
    with tf.Graph().as_default() as graph, cpu.session(graph) as session:
        encoded = []
        for number in range(COUNT):
            sides = (image_size + 7 + 16 * number, image_size + 40 - 8 * number)
            colours = tf.constant(random.uniform(0, 255, (1, _CONTROL_POINTS, _CONTROL_POINTS, 3)))
            noise = random.normal(scale=_NOISE, size=(*sides, 3))
            flowing = tf.compat.v1.image.resize_bicubic(colours, sides)[0]
            pixels = tf.cast(tf.clip_by_value(tf.cast(flowing, tf.float64) + noise, 0.0, 255.0), tf.uint8)
            encoded.append(tf.io.encode_jpeg(pixels, quality=90))
        files = session.run(encoded)
        pixels = session.run(tf.stack([decode_eval(file, image_size) for file in files]))
        normalised = session.run(network_input(tf.constant(pixels), network))
    return Pictures(tuple(files), pixels, normalised)


def save(path: str, pictures: Pictures) -> None:
    """Writes them for another process; see `load`."""
    # As bytes of fixed length, padded with zeros, which numpy takes off again: a JPEG file ends in 0xD9.
    np.savez(path, encoded=np.array(pictures.encoded), pixels=pictures.pixels, normalised=pictures.normalised)


def load(path: str) -> Pictures:
    """What `save` wrote."""
    with np.load(path) as file:
        return Pictures(tuple(file["encoded"].tolist()), file["pixels"], file["normalised"])
