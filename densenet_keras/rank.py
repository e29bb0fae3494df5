"""One process of a run, as everything that it calls sees it."""

from __future__ import annotations

from dataclasses import dataclass

from densenet_keras.settings.config import Config
from densenet_keras.stop import StopFlag
from densenet_keras.topology import Topology
from densenet_keras.watchdog import Watchdog


@dataclass(frozen=True)
class Rank:
    """Who this process is: made once, passed on as one thing.

    Attributes:
        topology: its place among the ranks.
        stop: what a signal leaves behind.
        watchdog: ends the process if it makes no progress.
        is_watched: whether what it writes to stderr reaches a person at a terminal.
    """

    topology: Topology
    stop: StopFlag
    watchdog: Watchdog
    is_watched: bool = False

    @staticmethod
    def alone(config: Config) -> Rank:
        """The one rank of a run inside somebody's Python: no signal handlers, and nothing ends it."""
        device = config.device
        watchdog = Watchdog(device.first_step_timeout_seconds, device.step_timeout_seconds)
        return Rank(Topology(), StopFlag(), watchdog)
