"""TensorFlow's own decoders and encoders for pictures, one at a time, from any number of threads.

Whether a picture can be used is for the decoders to say that training uses, and no others. The graph
runs in the thread that calls, on the CPU, with no device of an accelerator touched.
"""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, List, Sequence, Tuple, Union

import numpy as np
import tensorflow as tf

from densenet_keras.data.picture_header import BMP, GIF, JPEG, Header

# What one call may take part in: the pixels of pictures that are decoded at the same time.
PIXELS_AT_ONCE = 24_000_000


class UndecodableError(ValueError):
    """A picture that TensorFlow's decoder refuses; the message is the decoder's, in short."""


Size = Union[Tuple[int, int], UndecodableError]  # height and width in pixels


def calling_thread_session(graph: tf.Graph) -> tf.compat.v1.Session:
    """A session on the CPU for calls from many threads, each of which does its own work."""
    # A negative number: operations run in the calling thread, nothing is handed over and back.
    options = tf.compat.v1.ConfigProto(
        device_count={"GPU": 0}, inter_op_parallelism_threads=-1, intra_op_parallelism_threads=1
    )
    return tf.compat.v1.Session(graph=graph, config=options)


class Decoder:
    """Decodes, shrinks and encodes single pictures; safe to call from several threads.

    Memory stays bounded whatever the pictures: of those decoded at the same time all but the first
    must fit into PIXELS_AT_ONCE together.
    """

    def __init__(self, quality: int = 95) -> None:
        """
        Args:
            quality: of the JPEGs that are encoded, 1 to 100.
        """
        self._calls: Dict[Any, Callable[..., Any]] = {}
        self._graph = tf.Graph()
        self._session = calling_thread_session(self._graph)
        self._budget = _PixelBudget(PIXELS_AT_ONCE)
        with self._graph.as_default():
            self._build(quality)
        self._graph.finalize()

    def close(self) -> None:
        """Ends the session; no call may follow."""
        self._session.close()

    def _build(self, quality: int) -> None:
        encoded = tf.compat.v1.placeholder(tf.string, [])
        pixels = tf.compat.v1.placeholder(tf.uint8, [None, None, None])
        sides = tf.compat.v1.placeholder(tf.int32, [2])
        for channels in (1, 3):
            self._add(("decode", channels), tf.image.decode_jpeg(encoded, channels=channels), encoded)
        several = tf.compat.v1.placeholder(tf.string, [None])
        shapes = tf.map_fn(  # decode_jpeg decodes PNG as well, as in evaluation
            lambda one: tf.shape(tf.image.decode_jpeg(one, channels=3)), several, dtype=tf.int32,
            parallel_iterations=1, back_prop=False,
        )  # fmt: skip
        self._add("shapes", shapes, several)
        self._add("png", tf.image.decode_png(encoded, channels=0), encoded)
        self._add("gif", tf.image.decode_gif(encoded), encoded)
        for channels in (1, 3, 4):  # with 0 the operation remembers the channels of the first file it met
            self._add(("bmp", channels), tf.image.decode_bmp(encoded, channels=channels), encoded)
        resized = tf.compat.v2.image.resize(pixels, sides, method="bilinear", antialias=True)
        rounded = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
        self._add("resize", rounded, pixels, sides)
        self._add("encode jpeg", tf.image.encode_jpeg(pixels, quality=quality), pixels)
        self._add("encode png", tf.image.encode_png(pixels), pixels)

    def _add(self, name: Any, fetch: tf.Tensor, *feeds: tf.Tensor) -> None:
        self._calls[name] = self._session.make_callable(fetch, feed_list=list(feeds))

    def sizes(self, encoded: Sequence[bytes], headers: Sequence[Header]) -> List[Size]:
        """Height and width of each JPEG or PNG, all of it decoded as training does; no pixel is copied.

        In place of a size stands the UndecodableError of a picture that the decoder refuses.
        """
        if not encoded:
            return []
        pixels = max(header.height * header.width for header in headers)  # they are decoded in turn
        try:
            with self._budget.taking(pixels):
                shapes = self._calls["shapes"](np.array(encoded, object))
            return [(int(height), int(width)) for height, width, _ in shapes]
        except tf.errors.OpError as error:
            if len(encoded) == 1:
                return [UndecodableError(_reason(error))]
        # One of them is bad; the error does not say which.
        return [size for one in zip(encoded, headers) for size in self.sizes([one[0]], [one[1]])]

    def pixels(self, encoded: bytes, header: Header) -> np.ndarray:
        """The picture, as stored: [height, width, channels] uint8; the first frame of a GIF.

        JPEG comes as grey (1) or RGB (3), PNG with its own 1 to 4 channels, GIF and BMP as RGB.

        Raises:
            UndecodableError: the decoder refuses it.
        """
        if header.kind == JPEG:
            return self._decode(("decode", 1 if header.channels == 1 else 3), encoded, header)
        if header.kind == GIF:
            return self._decode("gif", _first_frame(encoded), header)[0]
        if header.kind == BMP:
            return _bmp_colours(self._decode(("bmp", header.channels), encoded, header), encoded)
        return self._decode("png", encoded, header)

    def resize(self, pixels: np.ndarray, height: int, width: int) -> np.ndarray:
        """`pixels` made smaller: linear interpolation over all pixels that a new one covers."""
        with self._budget.taking(pixels.shape[0] * pixels.shape[1]):
            return self._calls["resize"](pixels, np.array([height, width], np.int32))

    def jpeg(self, pixels: np.ndarray) -> bytes:
        """[height, width, 1 or 3] uint8 as JPEG."""
        return self._calls["encode jpeg"](np.ascontiguousarray(pixels))

    def png(self, pixels: np.ndarray) -> bytes:
        """[height, width, 1 to 4] uint8 as PNG."""
        return self._calls["encode png"](np.ascontiguousarray(pixels))

    def _decode(self, call: Any, encoded: bytes, header: Header) -> np.ndarray:
        try:
            with self._budget.taking(header.height * header.width):
                return self._calls[call](encoded)
        except tf.errors.OpError as error:
            raise UndecodableError(_reason(error)) from error


def _reason(error: tf.errors.OpError) -> str:
    """The decoder's own words, without the names of operations around them."""
    words = (error.message or type(error).__name__).splitlines()[0].strip()
    return f"damaged or cut off: {words}"


def _first_frame(encoded: bytes) -> bytes:
    """A GIF without its later frames: the decoder would hold all of them in memory at once.

    Source of the format: GIF89a specification, W3C, sections 17 to 27.
    """
    position = 13 + _colour_table_bytes(encoded, 10)
    while position < len(encoded):
        if encoded[position] == 0x2C:  # an image: descriptor, local colour table, data
            position += 10 + _colour_table_bytes(encoded, position + 9) + 1
            return encoded[: _after_blocks(encoded, position)] + b"\x3b"
        if encoded[position] != 0x21:  # neither image nor extension: for the decoder to judge
            break
        position = _after_blocks(encoded, position + 2)
    return encoded


def _colour_table_bytes(encoded: bytes, flags: int) -> int:
    if flags >= len(encoded) or not encoded[flags] & 0x80:
        return 0
    return 3 << ((encoded[flags] & 7) + 1)


def _after_blocks(encoded: bytes, position: int) -> int:
    """The byte behind a chain of sub-blocks, each of which begins with its length."""
    while position < len(encoded) and encoded[position]:
        position += encoded[position] + 1
    return position + 1


def _bmp_colours(pixels: np.ndarray, encoded: bytes) -> np.ndarray:
    """RGB of a decoded BMP: TensorFlow gives palette indices as grey, and alpha that viewers ignore."""
    if pixels.shape[2] != 1:
        return pixels[:, :, :3]
    start = 14 + int.from_bytes(encoded[14:18], "little")
    data = int.from_bytes(encoded[10:14], "little")
    palette = np.frombuffer(encoded[start : min(data, start + 4 * 256)], np.uint8)
    palette = palette[: len(palette) // 4 * 4].reshape(-1, 4)[:, 2::-1]  # stored as B, G, R, 0
    if len(palette) <= int(pixels.max()):
        raise UndecodableError("the BMP uses colours that its palette does not have")
    return palette[pixels[:, :, 0]]


class _PixelBudget:
    """Lets work in while the pixels of all that is in fit, and whatever comes when nothing is in."""

    def __init__(self, pixels: int) -> None:
        self._free = self._all = pixels
        self._changed = threading.Condition()

    def taking(self, pixels: int) -> _Taken:
        return _Taken(self, min(pixels, self._all))

    def take(self, pixels: int) -> None:
        with self._changed:
            while self._free < pixels:
                self._changed.wait()
            self._free -= pixels

    def give(self, pixels: int) -> None:
        with self._changed:
            self._free += pixels
            self._changed.notify_all()


class _Taken:
    """A share of the budget for the time of a with block (a generator would cost as much as a decode)."""

    def __init__(self, budget: _PixelBudget, pixels: int) -> None:
        self._budget, self._pixels = budget, pixels

    def __enter__(self) -> None:
        self._budget.take(self._pixels)

    def __exit__(self, *error: object) -> None:
        self._budget.give(self._pixels)
