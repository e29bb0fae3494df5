"""Which rank a process is, and where its peers are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple


@dataclass(frozen=True)
class Topology:
    """One process among `size`.

    `addresses` holds host:port of every rank in rank order; it is empty for one rank and on
    backends that find their peers themselves.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    addresses: Tuple[str, ...] = ()

    @property
    def is_primary(self) -> bool:
        """Whether this rank writes the files."""
        return self.rank == 0
