"""The one file that `confirm` leaves, and the table it prints."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import shutil
import socket
import sys
import textwrap
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence

import densenet_keras
from densenet_keras import files
from densenet_keras.backends.confirmation import FAILED, NOT_TRIED, PASSED, Line, Ran, Verdict
from densenet_keras.commands.confirm_runs import shown
from densenet_keras.commands.confirm_settings import ConfirmSettings
from densenet_keras.errors import RunError, UsageError
from densenet_keras.settings.rules import counted

FILE_NAME = "confirmation.json"
_MOST_LINES = 60  # of a run's metrics, and of the output of one that failed
_NOT_OF_THE_TRIAL = ("only", "max_minutes", "log_dir")  # what may change from one start to the next


class Report:
    """What is known of each line so far, on the disk after each."""

    def __init__(
        self, settings: ConfirmSettings, backend: str, lines: Sequence[Line], machine: Mapping[str, Any]
    ) -> None:
        """Reads what an earlier start has left.

        Raises:
            UsageError: that was of other settings, or cannot be read.
        """
        self._path = os.path.join(settings.log_dir, FILE_NAME)
        self._lines = {line.name: line for line in lines}
        chosen = {**dataclasses.asdict(settings), "backend": backend}
        self._settings = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in chosen.items()
            if name not in _NOT_OF_THE_TRIAL
        }
        self._settings["data_dir"] = os.path.abspath(settings.data_dir)
        earlier = self._earlier()
        self._machine = {**_versions(), **machine}
        self._results: Dict[str, Dict[str, Any]] = earlier.get("lines", {})
        self._runs: Dict[str, Any] = earlier.get("runs", {})

    def _earlier(self) -> Dict[str, Any]:
        if not os.path.exists(self._path):
            return {}
        try:
            with open(self._path, encoding="utf-8") as file:
                stored: Dict[str, Any] = json.load(file)
            before = dict(stored["settings"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{self._path} cannot be read ({error}); choose another --log_dir") from error
        for name, value in self._settings.items():
            if before.get(name) != value:
                raise UsageError(
                    f"{self._path} holds what was found with --{name} {before.get(name)}, now it is {value}; "
                    "choose another --log_dir"
                )
        return stored

    def verdict(self, name: str) -> str:
        """Of one line."""
        found: str = self._results.get(name, {}).get("verdict", NOT_TRIED)
        return found

    @property
    def failed(self) -> List[str]:
        """Names of the lines that did not hold."""
        return [name for name in self._lines if self.verdict(name) == FAILED]

    def add(self, name: str, verdict: Verdict, runs: Optional[Mapping[str, Ran]] = None) -> None:
        """Takes what became of a line, and writes the file.

        Raises:
            RunError: it cannot be written.
        """
        runs = runs or {}
        self._results[name] = {
            "claim": self._lines[name].claim,
            "verdict": verdict.verdict,
            "finding": verdict.finding,
            "evidence": verdict.evidence,
            "runs": list(runs),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        self._runs.update({each: _told(ran) for each, ran in runs.items()})
        in_order = {name: self._results[name] for name in self._lines if name in self._results}
        whole = {
            "densenet_keras": densenet_keras.__version__,
            "settings": self._settings,
            "machine": self._machine,
            "lines": in_order,
            "runs": self._runs,
        }
        try:
            files.write_json(self._path, _plain(whole))
        except OSError as error:
            raise RunError(f"{self._path} cannot be written: {error.strerror}") from error

    def row(self, name: str) -> str:
        """One line of the table."""
        widest = max(map(len, self._lines))
        head = f"{name:<{widest}}  {self.verdict(name):<{len(NOT_TRIED)}}  "
        finding = self._results.get(name, {}).get("finding", "not asked for")
        width = max(60, shutil.get_terminal_size((110, 20)).columns)
        return "\n".join(textwrap.wrap(head + finding, width, subsequent_indent=" " * len(head)))

    def table(self) -> str:
        """All lines, how many of each verdict, and where the file is."""
        verdicts = [self.verdict(name) for name in self._lines]
        told = ", ".join(f"{verdicts.count(kind)} {kind}" for kind in (PASSED, FAILED, NOT_TRIED))
        rows = [self.row(name) for name in self._lines]
        return "\n".join(
            ["", *rows, "", f"{counted(len(rows), 'line')}: {told}; all of it is in {self._path}"]
        )


def _versions() -> Dict[str, Any]:
    import numpy
    import tensorflow

    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "python": sys.version.split()[0],
        "tensorflow": tensorflow.__version__,
        "numpy": numpy.__version__,
    }


def _told(ran: Ran) -> Dict[str, Any]:
    told: Dict[str, Any] = {
        "command": shown(ran.command),
        "code": ran.code,
        "seconds": round(ran.seconds, 1),
        "first_line_seconds": ran.first_line_seconds,
        "metrics": [dict(line) for line in (*ran.lines[:_MOST_LINES], *ran.evaluations[:_MOST_LINES])],
        "samples": [dict(each) for each in ran.samples[:_MOST_LINES]],
    }
    if ran.code:
        told["output"] = ran.output.splitlines()[-_MOST_LINES:]
    return told


def _plain(value: Any) -> Any:
    """`value` as JSON takes it: numbers that are not finite become words."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
