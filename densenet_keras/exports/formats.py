"""The formats by name. No TensorFlow before one is used."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Dict, List

if TYPE_CHECKING:
    from densenet_keras.exports.base import Format

# Name to module in this package.
MODULES: Dict[str, str] = {
    "savedmodel": "savedmodel",
    "pb": "pb",
    "tflite": "tflite",
    "onnx": "onnx_file",
    "h5": "keras_h5",
    "npz": "npz",
    "om": "om",
}


def find(name: str) -> Format:
    """The format of that name."""
    module = importlib.import_module(f"densenet_keras.exports.{MODULES[name]}")
    found: Format = module.FORMAT
    return found


def missing_packages(format: Format) -> List[str]:
    """Packages that `format` needs and this Python has not."""
    return [name for name in format.packages if importlib.util.find_spec(name) is None]
