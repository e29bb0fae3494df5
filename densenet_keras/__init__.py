"""DenseNet training with tf.keras on TensorFlow 1.15.

The names below load TensorFlow when they are first used, not when the package is imported: the
command line starts and supervises its ranks without it.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any, List

if TYPE_CHECKING:
    from densenet_keras.checkpoints.model import load_model
    from densenet_keras.commands.evaluate import evaluate
    from densenet_keras.commands.main import parse
    from densenet_keras.commands.train import train
    from densenet_keras.network.applications import (
        DenseNet121,
        DenseNet161,
        DenseNet169,
        DenseNet201,
        DenseNet264,
        DenseNetCifar,
        DenseNetTiny,
    )
    from densenet_keras.network.description import describe
    from densenet_keras.prediction.classifier import Classifier

__version__ = "0.7.0"

__all__ = [
    "Classifier",
    "DenseNet121",
    "DenseNet161",
    "DenseNet169",
    "DenseNet201",
    "DenseNet264",
    "DenseNetCifar",
    "DenseNetTiny",
    "describe",
    "evaluate",
    "load_model",
    "parse",
    "train",
]

# Where the names stand that are not networks.
_MODULES = {
    "Classifier": "prediction.classifier",
    "describe": "network.description",
    "evaluate": "commands.evaluate",
    "load_model": "checkpoints.model",
    "parse": "commands.main",
    "train": "commands.train",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with warnings.catch_warnings():
        # TensorFlow 1.15 spells types in a way that numpy announces to read differently one day.
        warnings.filterwarnings("ignore", category=FutureWarning, module="tensor(flow|board)")
        module = importlib.import_module(f"densenet_keras.{_MODULES.get(name, 'network.applications')}")
    return getattr(module, name)


def __dir__() -> List[str]:
    return sorted([*globals(), *__all__])
