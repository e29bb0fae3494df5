"""`python -m densenet_keras confirm`: what must hold on a device, tried by commands that users run."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from types import FrameType
from typing import Iterator, NoReturn, Optional, Sequence

from densenet_keras import backends
from densenet_keras.backends.confirmation import FAILED, PASSED, Line, RunFailed, Verdict, failed, not_tried
from densenet_keras.commands import confirm_report, confirm_runs, start
from densenet_keras.commands.confirm_settings import ConfirmSettings
from densenet_keras.commands.tensorflow_import import import_tensorflow
from densenet_keras.errors import EXIT_DONE, EXIT_FAILED, EXIT_TERMINATED, UsageError
from densenet_keras.settings.config import Config
from densenet_keras.settings.rules import refuse
from densenet_keras.topology import in_place

EXAMPLE = "--data_dir /data/imagenet --rank_size 8"

Settings = ConfirmSettings


def run(settings: Settings) -> int:
    """Tries the lines; returns 1 if one failed, else 0.

    Raises:
        UsageError: data, folder or a line's name.
        RunError: the file cannot be written.
    """
    start.require("tensorflow")
    if in_place(os.environ):
        raise UsageError(
            "confirm starts its ranks itself, but the environment says that this process is one of several; "
            "start it once, without mpirun or srun, with --rank_size N"
        )
    if not settings.data_dir:
        raise UsageError("--data_dir is missing: give a data set, such as a folder that `prepare` made")
    import_tensorflow(log_level="3")
    backend = backends.automatic() if settings.backend == "auto" else settings.backend
    backing = backends.host(Config().replace(backend=backend)).confirmation()
    absent = {
        line.name: (line, f"needs a device: --backend {other}")
        for other, lines in backends.confirmed_elsewhere(backend).items()
        for line in lines
    }
    lines = [*backing.lines, *(line for line, _ in absent.values())]
    _check_names(settings.only, [line.name for line in lines])
    report = confirm_report.Report(settings, backend, lines, backing.machine(os.environ))
    trials = confirm_runs.Runs(settings, backend, backing)
    for name, (_, reason) in absent.items():
        report.add(name, not_tried(reason))
    with _ending_on_sigterm():
        _try_all(settings, [line for line in lines if line.name not in absent], trials, report)
    print(report.table())
    return EXIT_FAILED if report.failed else EXIT_DONE


def _check_names(only: Sequence[str], known: Sequence[str]) -> None:
    for name in only:
        if name not in known:
            raise refuse("only", name, f"must be one of {', '.join(known)}")


def _try_all(
    settings: Settings, lines: Sequence[Line], trials: confirm_runs.Runs, report: confirm_report.Report
) -> None:
    """Tries what is asked for and not done, each line by itself: one that fails does not end the others."""
    started = time.monotonic()
    wanted = [line for line in lines if line.name in settings.only or not settings.only]
    due = [line for line in wanted if settings.only or report.verdict(line.name) != PASSED]
    for number, line in enumerate(due):
        if line.least_ranks > settings.rank_size:
            report.add(line.name, not_tried(f"needs --rank_size {line.least_ranks} or more"))
            continue
        if time.monotonic() - started > 60 * settings.max_minutes:
            report.add(line.name, not_tried(f"--max_minutes {settings.max_minutes} were over"))
            continue
        trials.runs_ahead = sum(later.runs for later in due[number:])
        verdict = _tried(line, trials, report)
        report.add(line.name, verdict, trials.used_by_line())
        print(report.row(line.name), file=sys.stderr, flush=True)


def _tried(line: Line, trials: confirm_runs.Runs, report: confirm_report.Report) -> Verdict:
    trials.begin(line)
    try:
        verdict = line.check(trials)
    except RunFailed as error:
        if error.ran.name in trials.blamed:
            return not_tried(f"its run {error.ran.name} failed, see {trials.blamed[error.ran.name]}")
        verdict = failed(str(error))
    except Exception as error:  # whatever else a device answers
        verdict = failed(f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
    if verdict.verdict == FAILED:
        trials.blame(line.name)
    return verdict


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """SIGTERM ends this command as ctrl-C does, once the run that goes on has stopped."""

    def end(number: int, frame: Optional[FrameType]) -> NoReturn:
        raise SystemExit(EXIT_TERMINATED)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
