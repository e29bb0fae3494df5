"""The commands that `confirm` starts: each in a folder of its own, none twice."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from typing import Any, Dict, List, Mapping, Optional, Tuple

from tqdm import tqdm

import densenet_keras
from densenet_keras import backends, files
from densenet_keras.backends.confirm_lines import STEPS
from densenet_keras.backends.confirmation import PLAINLY, Backing, How, Line, Ran, RunFailed, Trials
from densenet_keras.commands import confirm_data
from densenet_keras.commands.confirm_process import Process
from densenet_keras.commands.confirm_settings import ConfirmSettings
from densenet_keras.errors import EXIT_TERMINATED, UsageError
from densenet_keras.settings.config import EVALUATE, TRAIN, Config, fields
from densenet_keras.settings.device import BACKENDS

RESULT = "result.json"
_DIGEST = "densenet_keras.training.weights_digest"
_FIRST_STEP_SECONDS = 1200  # a device that hangs must not take the hour
_FEW_IMAGES = 4  # in a step on the CPU


class Runs(Trials):
    """See `Trials`. What has been run as it was asked to stays in log_dir/runs for the next start.

    Attributes:
        runs_ahead: about how many are still to come, for the estimate of the time left.
        blamed: of each run that went wrong, the line that says so.
    """

    def __init__(self, settings: ConfirmSettings, backend: str, backing: Backing) -> None:
        """Prepares a small data set.

        Raises:
            UsageError: the data set or a flag of all runs cannot be used.
        """
        self.environ = os.environ
        self.rank_size, self.batch_size = settings.rank_size, settings.batch_size
        self.batch_sizes = [int(text) for text in settings.batch_sizes]
        self.speed_steps = settings.speed_steps
        self.runs_ahead = 0
        self.blamed: Dict[str, str] = {}
        self._settings, self._backend, self._backing = settings, backend, backing
        self._common = _of_all_runs(settings.run_flag)
        self._folder = os.path.abspath(settings.log_dir)
        self._data_dir = os.path.join(self._folder, "data")
        global_batch = settings.rank_size * settings.batch_size
        images = confirm_data.link_part(settings.data_dir, self._data_dir, (STEPS + 1) * global_batch)
        self.steps_per_epoch = images // global_batch
        self._done: Dict[str, Ran] = {}
        self._used: List[str] = []
        self._line = ""
        self._seconds: List[float] = []

    def begin(self, line: Line) -> None:
        """What is run from now on is for `line`."""
        self._line, self._used = line.name, []

    def used_by_line(self) -> Dict[str, Ran]:
        """The runs that the line begun last has read, by name."""
        return {name: self._done[name] for name in dict.fromkeys(self._used) if name in self._done}

    def blame(self, line: str) -> None:
        """Remembers that `line` tells of the runs it read which went wrong."""
        for name, ran in self.used_by_line().items():
            if ran.code not in (0, EXIT_TERMINATED):
                self.blamed.setdefault(name, line)

    def train(self, name: str, flags: Mapping[str, Any], how: How = PLAINLY) -> Ran:
        """See `Trials.train`."""
        # A crash is to be seen, not to be mended.
        own = {
            "first_step_timeout_seconds": _FIRST_STEP_SECONDS,
            "max_restarts": 0,
            **self._own(how),
            **flags,
        }
        if how.elsewhere:
            own["batch_size"] = min(self.batch_size, _FEW_IMAGES)
        if how.observed or how.digested:
            own["callbacks"] = f"{_DIGEST}:make"
        return self._run(name, TRAIN, own, how)

    def evaluate(self, name: str, checkpoint: str, how: How = PLAINLY) -> Ran:
        """See `Trials.evaluate`."""
        table = os.path.join(self._folder, "runs", name, "evaluation.json")
        return self._run(name, EVALUATE, {**self._own(how), "eval_dir": checkpoint, "json": table}, how)

    def plan(self, name: str, flags: Mapping[str, Any]) -> Ran:
        """See `Trials.plan`."""
        how = How(may_fail=True)
        return self._run(name, TRAIN, {**self._own(how), **flags, "dry_run": True}, how)

    def _own(self, how: How) -> Dict[str, Any]:
        """The flags of every run, those that a person gave last."""
        general = BACKENDS[0]
        where = {"backend": general, "rank_size": 1} if how.elsewhere else {
            "backend": self._backend, "rank_size": self.rank_size
        }  # fmt: skip
        foreign = backends.foreign_settings(Config().replace(backend=where["backend"]))
        given = {name: value for name, value in self._common.items() if name not in foreign}
        settings = self._settings
        return {
            "data_dir": self._data_dir, "model": settings.model, "batch_size": settings.batch_size, **where,
            **given,
        }  # fmt: skip

    def _run(self, name: str, command: str, flags: Dict[str, Any], how: How) -> Ran:
        self._used.append(name)
        if name not in self._done:
            flags = {n: value for n, value in flags.items() if command in fields()[n].metadata["commands"]}
            flags["log_dir"] = os.path.join(self._folder, "runs", how.goes_on or name, "run")
            arguments = [command, *(f"--{flag}={_text(value)}" for flag, value in flags.items())]
            self._done[name] = self._earlier(name, arguments, how) or self._start(name, arguments, how)
            self._seconds.append(self._done[name].seconds)
        ran = self._done[name]
        if not (_as_asked(ran, how) or how.may_fail):
            raise RunFailed(ran)
        return ran

    def _earlier(self, name: str, arguments: List[str], how: How) -> Optional[Ran]:
        """What an earlier start of `confirm` has left of the run, if that was as it should be."""
        folder = os.path.join(self._folder, "runs", name)
        try:
            with open(os.path.join(folder, RESULT), encoding="utf-8") as file:
                stored = json.load(file)
            ran = self._read(name, folder, stored, how)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return ran if _as_asked(ran, how) and stored["asked"] == self._asked(arguments) else None

    def _asked(self, arguments: List[str]) -> List[str]:
        """Arguments without the place of the folder, which may have been moved."""
        return [argument.replace(self._folder, "LOG_DIR") for argument in arguments]

    def _start(self, name: str, arguments: List[str], how: How) -> Ran:
        folder = os.path.join(self._folder, "runs", name)
        shutil.rmtree(folder, ignore_errors=True)
        for part in ("plog", "digests"):
            os.makedirs(os.path.join(folder, part))
        self._say(name)
        process = Process(folder, arguments, self._environment(folder, how), self._backing, how)
        run_folder = os.path.join(self._folder, "runs", how.goes_on or name, "run")
        stored = process.wait(os.path.join(run_folder, "metrics.jsonl"))
        stored["asked"] = self._asked(arguments)
        files.write_json(os.path.join(folder, RESULT), stored)
        return self._read(name, folder, stored, how)

    def _say(self, name: str) -> None:
        """Which run begins, and about how long all of them will take."""
        left = "?"
        if self._seconds:
            mean = sum(self._seconds) / len(self._seconds)
            left = tqdm.format_interval(mean * max(1, self.runs_ahead))
        self.runs_ahead = max(0, self.runs_ahead - 1)
        where = os.path.join(self._folder, "runs", name, "output.log")
        print(
            f"{self._line}: run {name}, about {left} left; its output: {where}", file=sys.stderr, flush=True
        )

    def _environment(self, folder: str, how: How) -> Dict[str, str]:
        root = os.path.dirname(os.path.dirname(os.path.abspath(densenet_keras.__file__)))
        path = os.pathsep.join([root, *filter(None, [self.environ.get("PYTHONPATH")])])
        added = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        if how.observed or how.digested:
            from densenet_keras.training import weights_digest

            added[weights_digest.FOLDER] = os.path.join(folder, "digests")
        if how.observed:
            added.update(self._backing.environment(os.path.join(folder, "plog")))
        return {**self.environ, **added}

    def _read(self, name: str, folder: str, stored: Mapping[str, Any], how: How) -> Ran:
        from densenet_keras.training import weights_digest
        from densenet_keras.training.callbacks import metrics

        written: List[Dict[str, Any]] = []
        path = os.path.join(self._folder, "runs", how.goes_on or name, "run", metrics.FILE_NAME)
        if os.path.exists(path):
            written = metrics.read(path)
        table = os.path.join(folder, "evaluation.json")
        evaluations = [line for line in written if "top1" in line]
        if os.path.exists(table):
            with open(table, encoding="utf-8") as file:
                evaluations = json.load(file)
        return Ran(
            name=name,
            folder=folder,
            lines=tuple(line for line in written if "learning_rate" in line),
            evaluations=tuple(evaluations),
            digests=tuple(weights_digest.read(os.path.join(folder, "digests"))),
            command=tuple(stored["command"]),
            code=stored["code"],
            seconds=stored["seconds"],
            first_line_seconds=stored["first_line_seconds"],
            samples=tuple(stored["samples"]),
        )


def _as_asked(ran: Ran, how: How) -> bool:
    return ran.code == 0 or (bool(how.stop_at) and ran.code == EXIT_TERMINATED)


def _of_all_runs(given: Tuple[str, ...]) -> Dict[str, Any]:
    """NAME=VALUE as flags.

    Raises:
        UsageError: there is no such flag.
    """
    found: Dict[str, Any] = {}
    for text in given:
        name, _, value = text.lstrip("-").partition("=")
        if name not in fields():
            raise UsageError(
                f"--run_flag {text}: there is no flag --{name}; train_keras.py --help_all lists all"
            )
        found[name] = value
    return found


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def shown(command: Tuple[str, ...]) -> str:
    """A command as a person can run it."""
    return " ".join(map(shlex.quote, command))
