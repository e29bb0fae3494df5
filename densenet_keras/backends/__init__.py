"""Backends: the only place that compares a backend's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, List, Mapping, Optional

if TYPE_CHECKING:
    from densenet_keras.backends.base import Backend
    from densenet_keras.settings.config import Config
    from densenet_keras.topology import Topology


def create(config: Config, topology: Topology) -> Backend:
    """The backend that `config.device.backend` names (resolved: tensorflow or ascend)."""
    if config.device.backend == "ascend":
        from densenet_keras.backends.ascend.backend import AscendBackend

        return AscendBackend(config, topology)
    from densenet_keras.backends.tensorflow.backend import TensorFlowBackend

    return TensorFlowBackend(config, topology)


def rank_environments(config: Config, base_env: Mapping[str, str]) -> Optional[List[Dict[str, str]]]:
    """What the backend adds to `base_env` for each rank of this server; None if it adds nothing.

    Where it is not None, the entries say which ranks (RANK_ID) are this server's: with a common rank
    table they are a part of all.

    Raises:
        UsageError: the ranks cannot be placed on this server's devices.
    """
    if config.device.backend == "ascend":
        from densenet_keras.backends.ascend import rank_environment

        return rank_environment.rank_environments(config, base_env)
    return None


def prepare_environment(config: Config, environ: Mapping[str, str]) -> Dict[str, str]:
    """What a rank must add to its own environment before its backend is created.

    Raises:
        UsageError: the environment does not say which device is this rank's.
    """
    if config.device.backend == "ascend":
        from densenet_keras.backends.ascend import rank_environment

        return rank_environment.complete_environment(config, environ)
    return {}


def takes_ascend_settings(config: Config) -> bool:
    """Whether the settings of the group `ascend` mean anything to the (resolved) backend."""
    return config.device.backend == "ascend"


def needs_addresses(config: Config) -> bool:
    """Whether the ranks of this backend must be told host and port of each other."""
    return config.device.backend != "ascend"  # HCCL has the rank table
