"""What `confirm` asks of a backend: claims about the device, each with the trial that decides it.

A claim is a `Line`. Its function starts commands through a `Trials`, which remembers them by name, so
that lines share runs, and reads what they left. No TensorFlow.
"""

from __future__ import annotations

import abc
import os
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from densenet_keras.settings import config as configuration
from densenet_keras.settings.config import Config

PASSED, FAILED, NOT_TRIED = "passed", "failed", "not tried"

_REASON_LINES = 4


class Verdict(NamedTuple):
    """What became of a line."""

    verdict: str
    finding: str  # in a sentence
    evidence: Dict[str, Any]  # the measured values behind it


def judged(holds: bool, finding: str, **evidence: Any) -> Verdict:
    """Passed if `holds`, else failed."""
    return Verdict(PASSED if holds else FAILED, finding, evidence)


def passed(finding: str, **evidence: Any) -> Verdict:
    return Verdict(PASSED, finding, evidence)


def failed(finding: str, **evidence: Any) -> Verdict:
    return Verdict(FAILED, finding, evidence)


def not_tried(reason: str, **evidence: Any) -> Verdict:
    return Verdict(NOT_TRIED, reason, evidence)


@dataclass(frozen=True)
class Ran:
    """One command that has ended, and what it left.

    Attributes:
        code: exit code.
        seconds: that it took.
        first_line_seconds: until its first log line, which the compilation of the first graph precedes;
            None if there was none.
        samples: what `Backing.sample` returned, before the command started and then every second.
        lines, evaluations: of its metrics.jsonl.
        digests: of each rank's weights, see `training.weights_digest`.
    """

    name: str
    folder: str
    command: Tuple[str, ...]
    code: int
    seconds: float
    first_line_seconds: Optional[float] = None
    samples: Tuple[Mapping[str, Any], ...] = ()
    lines: Tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    evaluations: Tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    digests: Tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    @property
    def run_folder(self) -> str:
        """Its --log_dir."""
        return os.path.join(self.folder, "run")

    @property
    def settings(self) -> Config:
        """What it was configured with, everything resolved."""
        return configuration.load(os.path.join(self.run_folder, "run.json"))

    @property
    def output(self) -> str:
        """Everything it printed."""
        with open(os.path.join(self.folder, "output.log"), encoding="utf-8", errors="replace") as file:
            return file.read()

    def has_checkpoint(self, step: int) -> bool:
        """Whether the checkpoint of `step` is there; saving one checks the step that the device counted."""
        return os.path.exists(self.checkpoint(step) + ".index")

    def checkpoint(self, step: int) -> str:
        """Its path."""
        return os.path.join(self.run_folder, f"model.ckpt-{step}")

    def reason(self) -> str:
        """Why it failed, in its own last words."""
        said = [line.strip() for line in self.output.splitlines() if line.strip()]
        errors = [line for line in said if re.match(r"(\w*Error|error|densenet_keras): ?\S", line)]
        return " ".join((errors or said)[-_REASON_LINES:])[:1000]


class RunFailed(Exception):
    """A command that a line needs did not do what it was asked to."""

    def __init__(self, ran: Ran) -> None:
        super().__init__(f"run {ran.name} ended with exit code {ran.code}: {ran.reason()}")
        self.ran = ran


class How(NamedTuple):
    """How a command is run.

    Attributes:
        may_fail: whether its failure is what a line looks for.
        digested: whether each rank leaves a digest of its weights.
        observed: that, and the device is sampled, and its libraries' own logs are asked for.
        stop_at: text in its output at which it is sent SIGTERM, once; empty for never.
        elsewhere: whether it runs on the CPU, as one rank.
        goes_on: name of the earlier run whose folder it continues; empty for a folder of its own.
    """

    may_fail: bool = False
    digested: bool = False
    observed: bool = False
    stop_at: str = ""
    elsewhere: bool = False
    goes_on: str = ""


PLAINLY = How()


class Trials(abc.ABC):
    """Starts commands and remembers them; what a person chose for all of them.

    Attributes:
        environ: of this process.
        batch_size: per rank, of all runs but those that measure speed.
        batch_sizes, speed_steps: of those.
        steps_per_epoch: of a run with `batch_size`.
    """

    environ: Mapping[str, str]
    rank_size: int
    batch_size: int
    batch_sizes: Sequence[int]
    speed_steps: int
    steps_per_epoch: int

    @abc.abstractmethod
    def train(self, name: str, flags: Mapping[str, Any], how: How = PLAINLY) -> Ran:
        """Trains with `flags` beside those of every run, unless a run of that name has succeeded before.

        Raises:
            RunFailed: its exit code is another than 0, unless `how` allows that.
        """

    @abc.abstractmethod
    def evaluate(self, name: str, checkpoint: str, how: How = PLAINLY) -> Ran:
        """Evaluates a checkpoint; `evaluations` holds its one line. As `train`."""

    @abc.abstractmethod
    def plan(self, name: str, flags: Mapping[str, Any]) -> Ran:
        """The dry run of a training. As `train`, and may fail."""


class Line(NamedTuple):
    """One claim and how it is tried.

    Attributes:
        runs: commands that it starts and no line before it does, for an estimate of the time left.
        least_ranks: with fewer there is nothing to see.
    """

    name: str
    claim: str
    check: Callable[[Trials], Verdict]
    runs: int = 0
    least_ranks: int = 1


@dataclass(frozen=True)
class Backing:
    """What a backend brings to `confirm`.

    Attributes:
        lines: in the order of trying: those that others build on first.
        sample: what the device shows of itself just now, by name.
        machine: versions and description of the machine.
        environment: what to add to the environment of an observed run, whose libraries may log into a folder.
    """

    lines: Sequence[Line]
    sample: Callable[[], Dict[str, Any]] = dict
    machine: Callable[[Mapping[str, str]], Dict[str, Any]] = lambda environ: {}
    environment: Callable[[str], Dict[str, str]] = lambda folder: {}


def logs_of(lines: Sequence[Mapping[str, Any]], name: str) -> List[float]:
    """The values of one column that are numbers."""
    return [float(line[name]) for line in lines if line.get(name) is not None]
