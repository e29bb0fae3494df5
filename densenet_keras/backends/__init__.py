"""Backends: the only place that compares a backend's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from densenet_keras.backends.base import Backend
    from densenet_keras.config import Config
    from densenet_keras.topology import Topology


def create(config: Config, topology: Topology) -> Backend:
    """The backend that `config.device.backend` names (resolved: tensorflow or ascend)."""
    if config.device.backend == "ascend":
        from densenet_keras.backends.ascend import AscendBackend

        return AscendBackend(config, topology)
    from densenet_keras.backends.tensorflow import TensorFlowBackend

    return TensorFlowBackend(config, topology)
