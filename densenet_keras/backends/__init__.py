"""Backends, by name. A further one is a folder here with a module `host`, and its name in BACKENDS."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any, Dict, List

from densenet_keras.backends.confirmation import Line
from densenet_keras.backends.host import Failure, Host
from densenet_keras.settings.device import BACKENDS
from densenet_keras.settings.programs import Tool

if TYPE_CHECKING:
    from densenet_keras.backends.base import Backend
    from densenet_keras.settings.config import Config
    from densenet_keras.topology import Topology


def host(config: Config) -> Host:
    """The host side of the (resolved) backend of `config`."""
    return _host(config.device.backend)


def create(config: Config, topology: Topology) -> Backend:
    """The backend of one rank, as the (resolved) `config` names it."""
    return host(config).create(config, topology)


def automatic() -> str:
    """What --backend auto means here: the most special one that can be used."""
    return next(name for name in reversed(BACKENDS) if not _host(name).why_unavailable())


def why_not(name: str) -> Dict[str, str]:
    """The backends that auto would prefer to `name`, each with the reason why it cannot be used here."""
    preferred = BACKENDS[BACKENDS.index(name) + 1 :]
    return {other: _host(other).why_unavailable() for other in preferred}


def foreign_settings(config: Config) -> Dict[str, str]:
    """Settings that mean something to another backend alone, each with that backend's name."""
    return {
        setting: name
        for name in BACKENDS
        if name != config.device.backend and hasattr(config, name)
        for setting in vars(getattr(config, name))
    }


def confirmed_elsewhere(name: str) -> Dict[str, List[Line]]:
    """What other backends would have confirmed that `name` cannot, by backend."""
    mine = {line.name for line in _host(name).confirmation().lines}
    others = [other for other in BACKENDS if other != name]
    return {o: [line for line in _host(o).confirmation().lines if line.name not in mine] for o in others}


def known_failures() -> List[Failure]:
    """What the libraries of all backends write into logs."""
    return [failure for name in BACKENDS for failure in _host(name).failures]


def tools() -> Dict[str, Tool]:
    """Commands that concern one backend alone, by name."""
    return {tool: found for name in BACKENDS for tool, found in _host(name).tools.items()}


@functools.lru_cache(maxsize=None)
def _host(name: str) -> Host:
    module: Any = importlib.import_module(f"densenet_keras.backends.{name}.host")
    found: Host = module.HOST
    return found
