"""Whether ranks that failed are started again, and after which pause."""

from __future__ import annotations

import os
import re
import time
from typing import Mapping, Optional

from densenet_keras import files
from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.data import records
from densenet_keras.errors import EXIT_CRASHED, EXIT_HUNG
from densenet_keras.launch.supervisor import Outcome, say
from densenet_keras.settings.config import TRAINING, Config
from densenet_keras.stop import SIGNALS

DEFAULT = 3
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 300.0  # twice as long after each restart
STARTS_WITHOUT_PROGRESS = 2  # in a row, then it is given up
# What Slurm sets in the shell of a job, Volcano in the pods of one (its plugins env and svc).
_SCHEDULERS = {"Slurm": r"SLURM_JOB_ID", "Volcano": r"V[CK]_TASK_INDEX|VC_.+_HOSTS"}


def scheduler(environ: Mapping[str, str]) -> str:
    """The scheduler of this job that restarts jobs by itself; empty if there is none."""
    for name, pattern in _SCHEDULERS.items():
        if any(re.fullmatch(pattern, variable) for variable in environ):
            return name
    return ""


class Restarts:
    """Counts the starts of one command."""

    def __init__(self, config: Config, local_ranks: int, environ: Mapping[str, str]) -> None:
        self._log_dir = config.run.log_dir
        self._log = os.path.join(config.run.log_dir, config.run.log_name)
        self._left = self._allowed = _allowed(config, local_ranks, environ)
        self._idle_starts = 0
        self._step = self._newest_step()

    def pause_after(self, outcome: Outcome, cause: str) -> Optional[float]:
        """Seconds to wait before all ranks are started again; None if they shall not be.

        Says what it decides, on the console and in the log of the run.

        Args:
            cause: in words, what the first rank failed by.
        """
        if self._allowed == 0 or not is_accident(outcome):
            return None
        before, self._step = self._step, self._newest_step()
        self._idle_starts = 0 if self._step > before else self._idle_starts + 1
        if self._left == 0:
            self._tell(f"{cause}; not started again: --max_restarts {self._allowed} are used up, {_now()}")
            return None
        if self._idle_starts >= STARTS_WITHOUT_PROGRESS:
            self._tell(
                f"{cause}; not started again: {self._idle_starts} starts in a row saved nothing after step "
                f"{self._step}, {_now()}"
            )
            return None
        made = self._allowed - self._left
        pause = min(FIRST_PAUSE_SECONDS * 2**made, LONGEST_PAUSE_SECONDS)
        self._left -= 1
        source = f"from the checkpoint of step {self._step}" if self._step else "from the beginning"
        self._tell(f"restart {made + 1} of {self._allowed} in {pause:.0f} s, {source}: {cause}, {_now()}")
        return pause

    def _newest_step(self) -> int:
        found = checkpoint_files.newest(self._log_dir)
        return found[1] if found else 0

    def _tell(self, text: str) -> None:
        say(text)
        log = files.GrowingFile(self._log)
        log.append(f"{text}\n")
        log.close()


def _now() -> str:
    return time.strftime("at %Y-%m-%d %H:%M:%S")


def is_accident(outcome: Outcome) -> bool:
    """Whether the run ended by something that need not happen again: a crash, a hang, a lost rank.

    What was refused, and what a rank explained, would end the next start as well.
    """
    failure = outcome.failure
    if failure is None or outcome.stop_signal:
        return False
    if records.named_in(outcome.logs[failure.rank].text()):  # where a library aborts over a bad record
        return False
    if failure.code < 0:
        return -failure.code not in SIGNALS  # by which somebody ended a rank that was not up yet
    return failure.code in (EXIT_CRASHED, EXIT_HUNG)


def _allowed(config: Config, local_ranks: int, environ: Mapping[str, str]) -> int:
    if config.command not in TRAINING:
        return 0
    if config.device.max_restarts is not None:
        return config.device.max_restarts
    others_would_have_to = local_ranks < config.device.rank_size  # the launchers of other hosts
    return 0 if scheduler(environ) or others_would_have_to else DEFAULT
