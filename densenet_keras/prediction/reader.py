"""A picture file as the network sees it: decoded, turned upright, cut as in evaluation."""

from __future__ import annotations

import os
from typing import Union

import numpy as np
import tensorflow as tf

from densenet_keras.data import exif, images, picture_header
from densenet_keras.data.decoder import Decoder, UndecodableError, calling_thread_session

Picture = Union[str, "os.PathLike[str]", bytes, np.ndarray]


class UnreadableError(ValueError):
    """A picture that cannot be classified; the message says why."""


class PictureReader:
    """Reads pictures for a network; safe to call from several threads.

    A JPEG or PNG that notes no rotation goes through the very operations of evaluation, so that the same
    bytes give the same pixels. Others are decoded first: BMP and GIF (first frame), and pictures that a
    camera says to turn.
    """

    def __init__(self, image_size: int) -> None:
        self._decoder = Decoder()
        graph = tf.Graph()
        with graph.as_default():
            encoded = tf.compat.v1.placeholder(tf.string, [])
            pixels = tf.compat.v1.placeholder(tf.uint8, [None, None, 3])
            seen = images.decode_eval(encoded, image_size), images.eval_view(pixels, image_size)
        self._session = calling_thread_session(graph)
        self._from_encoded = self._session.make_callable(seen[0], feed_list=[encoded])
        self._from_pixels = self._session.make_callable(seen[1], feed_list=[pixels])

    def read(self, picture: Picture) -> np.ndarray:
        """[image_size, image_size, 3] uint8 of a file, of its bytes, or of an array [height, width, 3] uint8.

        Raises:
            UnreadableError: it cannot be read, or is not a picture.
        """
        try:
            if isinstance(picture, np.ndarray):
                return self._from_pixels(_checked(picture))
            if isinstance(picture, bytes):
                return self._of_bytes(picture)
            if not isinstance(picture, (str, os.PathLike)):  # a number would be an open file's
                raise UnreadableError(
                    f"a value of type {type(picture).__name__}; it must be a path, JPEG or PNG bytes, or an "
                    "array [height, width, 3] uint8, such as numpy.asarray makes of a Pillow image in RGB"
                )
            with open(picture, "rb") as file:
                return self._of_bytes(file.read())
        except OSError as error:
            raise UnreadableError(error.strerror or str(error)) from error
        except (picture_header.HeaderError, UndecodableError) as error:
            raise UnreadableError(str(error)) from error

    def _of_bytes(self, encoded: bytes) -> np.ndarray:
        header = picture_header.read(encoded)
        turned = exif.orientation(encoded)
        if turned == exif.UPRIGHT and header.kind in (picture_header.JPEG, picture_header.PNG):
            try:
                return self._from_encoded(encoded)
            except tf.errors.OpError as error:
                raise UnreadableError((error.message or "").splitlines()[0].strip()) from error
        pixels = exif.upright(self._decoder.pixels(encoded, header), turned)
        return self._from_pixels(_colour(pixels))

    def close(self) -> None:
        """Ends the sessions; no call may follow."""
        self._session.close()
        self._decoder.close()


def _colour(pixels: np.ndarray) -> np.ndarray:
    """[height, width, 3], of grey or colour with or without alpha, as decoding to 3 channels gives it."""
    channels = pixels.shape[2]
    if channels in (1, 2):
        return np.repeat(pixels[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3])


def _checked(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise UnreadableError(
            f"an array of shape {pixels.shape} and type {pixels.dtype}; it must be [height, width, 3] uint8, "
            "RGB from 0 to 255"
        )
    return pixels
