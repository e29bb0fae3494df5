"""What a backend knows of this machine before its ranks start, and around them; without TensorFlow."""

from __future__ import annotations

import abc
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, MutableMapping, Optional, Pattern, Sequence, Tuple

from densenet_keras.backends import confirm_lines
from densenet_keras.backends.confirmation import Backing
from densenet_keras.settings.programs import Tool

if TYPE_CHECKING:
    from densenet_keras.backends.base import Backend
    from densenet_keras.schedule import RunPlan
    from densenet_keras.settings.config import Config
    from densenet_keras.topology import Topology

# Stages of a failure, from causes to consequences: of several found in a log the earliest is shown.
ENVIRONMENT, GRAPH, RESOURCES, DATA, CONSEQUENCES = range(5)


@dataclass(frozen=True)
class Failure:
    """One known failure: `pattern` finds it in a log, `advice` says cause and remedy."""

    name: str
    pattern: Pattern[str]
    advice: str
    stage: int


def failure(stage: int, name: str, pattern: str, advice: str) -> Failure:
    """A `Failure` with its pattern as text; case does not count, libraries change it between releases."""
    return Failure(name, re.compile(pattern, re.IGNORECASE), advice, stage)


class Host(abc.ABC):
    """The host side of one backend. Every backend's folder has one, named HOST, in its module `host`.

    Attributes:
        name: as --backend has it; a group of settings of that name means something to this backend alone.
        needs_addresses: whether ranks must be told host and port of each other.
        failures: what its libraries write into logs.
        tools: commands of `python -m densenet_keras` that concern this backend alone.
        defaults: what settings mean here that were left open, where backends differ.
    """

    name: str
    needs_addresses = True
    failures: Sequence[Failure] = ()
    tools: Mapping[str, Tool] = {}
    defaults: Mapping[str, Any] = {"iterations_per_loop": 10, "save_checkpoints_steps": 5000}

    def why_unavailable(self) -> str:
        """Why --backend auto does not take it here; empty if it can be used."""
        return ""

    def check(self, config: Config) -> None:  # noqa: B027  (most refuse nothing)
        """Refuses settings that cannot work on this backend.

        Raises:
            UsageError: flag, value and rule of the first that fails.
        """

    def notes(self, config: Config) -> List[str]:
        """What a user of these settings should know, a sentence each."""
        return []

    def local_ranks(self, config: Config) -> int:
        """Ranks on this host of a run that nobody has started yet."""
        return config.device.rank_size

    def ranks_here(self, config: Config, environ: Mapping[str, str]) -> List[int]:
        """The ranks that a command of environment `environ` starts on this host, in order.

        Raises:
            UsageError: it cannot be known.
        """
        return list(range(config.device.rank_size))

    def rank_environments(
        self, config: Config, base_env: Mapping[str, str]
    ) -> Optional[List[Dict[str, str]]]:
        """What to add to `base_env` for each rank to start on this host; None if it adds nothing.

        Where it is not None, the entries say which ranks (RANK_ID) are this host's: with a common rank
        table they are a part of all.

        Raises:
            UsageError: the ranks cannot be placed on this host's devices.
        """
        return None

    def complete_environment(self, config: Config, environ: Mapping[str, str]) -> Dict[str, str]:
        """What a rank must add to its own environment before its backend is created.

        Raises:
            UsageError: the environment does not say which device is this rank's.
        """
        return {}

    def prepare_process(self, config: Config, environ: MutableMapping[str, str]) -> None:  # noqa: B027
        """Called once in a process that is a rank and nothing else, before TensorFlow is imported.

        Args:
            environ: of the process; what is set here, TensorFlow finds.
        """

    def describe_session(
        self, config: Config, plan: Optional[RunPlan], environ: Mapping[str, str]
    ) -> List[str]:
        """Lines of a dry run about the options of the session; `plan` is None without training."""
        return []

    def describe_steps(self, plan: RunPlan) -> List[str]:
        """Lines of a dry run about how the steps of `plan` are run."""
        return []

    def describe_memory(
        self,
        graphs: Sequence[Tuple[str, Sequence[Any]]],
        variables: List[Any],
        config: Config,
        plan: Optional[RunPlan],
    ) -> List[str]:
        """Lines of a dry run about the device memory that a session will need.

        Args:
            graphs: purpose and fetches of each graph that goes to the device, the main one first.
            plan: None without training.

        Raises:
            RunError: it is more than there is.
        """
        return []

    def confirmation(self) -> Backing:
        """What `confirm` tries here; what holds for any backend unless there is more."""
        return Backing(tuple(confirm_lines.LINES.values()))

    @abc.abstractmethod
    def create(self, config: Config, topology: Topology) -> Backend:
        """The backend of one rank."""

    @abc.abstractmethod
    def create_for_plan(self, config: Config, topology: Topology) -> Backend:
        """A backend that builds graphs as `create`'s does and needs no device."""
