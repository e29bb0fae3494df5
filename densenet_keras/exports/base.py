"""What a format is made of and what it is given."""

from __future__ import annotations

from typing import Callable, Dict, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf

from densenet_keras.checkpoints.model import Model
from densenet_keras.exports.formats import Options
from densenet_keras.exports.inference import Frozen
from densenet_keras.settings.config import ModelConfig

CLASSES_FILE = "classes.txt"


class Subject(NamedTuple):
    """What is exported.

    Attributes:
        model: the network with its weights, in a graph and session of its own.
        network: its settings, all of them resolved.
        frozen: its inference graph, for formats that hold one.
        class_names: in the order of the logits, where they are known.
    """

    model: Model
    network: ModelConfig
    frozen: Optional[Frozen]
    class_names: Optional[Tuple[str, ...]]
    options: Options

    @property
    def graph_def(self) -> tf.compat.v1.GraphDef:
        """The graph to write, from `inference.PIXELS` to `inference.OUTPUTS`."""
        assert self.frozen is not None, "a format without a graph asks for one"
        return self.frozen.graph_def

    @property
    def image_size(self) -> int:
        """Height and width of the pictures in pixels."""
        return int(self.model.input_shape[1])


def write_class_names(path: str, class_names: Sequence[str]) -> None:
    """A line for each class, in the order of the logits."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in class_names)


class Pictures(NamedTuple):
    """What an export is compared on.

    Attributes:
        encoded: JPEG files.
        pixels: ``[n, size, size, 3] uint8`` RGB, as evaluation cuts them out of `encoded`.
        normalised: ``[n, size, size, 3] float32``, what the network itself is given.
    """

    encoded: Tuple[bytes, ...]
    pixels: np.ndarray
    normalised: np.ndarray


class Format(NamedTuple):
    """One file format.

    Attributes:
        write: fills an empty folder.
        read: logits ``[n, classes] float32`` of the pictures, by each way into what `write` left in a
            folder; runs in a process that knows nothing else.
        usage: how to load it, as Markdown.
    """

    write: Callable[[str, Subject], None]
    read: Callable[[str, Pictures], Dict[str, np.ndarray]]
    usage: Callable[[Subject], str]
