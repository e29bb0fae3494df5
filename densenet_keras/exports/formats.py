"""The formats by name, and what can be chosen. No TensorFlow before one is used."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Dict, List, NamedTuple, Tuple

if TYPE_CHECKING:
    from densenet_keras.exports.base import Format

# What a graph is given: RGB from 0 to 255, normalised inside; or normalised pictures.
OF_PIXELS, OF_NORMALISED, NO_GRAPH = "pixels", "normalised", "none"
FLOAT32, FLOAT16 = "float32", "float16"
LEAST_OPSET = 11


class Entry(NamedTuple):
    """What is known of a format before it is used.

    Attributes:
        module: in this package.
        graph: what its graph is given, or NO_GRAPH.
        packages: Python packages that it needs beside ours.
    """

    module: str
    graph: str = OF_PIXELS
    packages: Tuple[str, ...] = ()


class Options(NamedTuple):
    """What can be chosen beside the format; each format uses some."""

    precision: str = FLOAT32  # of the weights in a TFLite file
    opset: int = 13  # of ONNX
    soc_version: str = ""  # the chip that an OM file is for
    batch_size: int = 1  # pictures in one run of an OM file


FORMATS: Dict[str, Entry] = {
    "savedmodel": Entry("savedmodel"),
    "pb": Entry("pb"),
    "tflite": Entry("tflite"),
    "onnx": Entry("onnx_file", packages=("tf2onnx", "onnxruntime")),
    "h5": Entry("keras_h5", NO_GRAPH),
    "npz": Entry("npz", NO_GRAPH),
    "om": Entry("om", OF_NORMALISED),
}


def find(name: str) -> Format:
    """The format of that name."""
    module = importlib.import_module(f"densenet_keras.exports.{FORMATS[name].module}")
    found: Format = module.FORMAT
    return found


def missing_packages(name: str) -> List[str]:
    """Packages that the format needs and this Python has not."""
    return [package for package in FORMATS[name].packages if importlib.util.find_spec(package) is None]
