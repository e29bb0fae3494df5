"""Spoiled inputs of every kind: no traceback, no hang, bounded memory, an error in words or the right result.

    python -m tests.endurance.fuzz --trials 1000 --seed 0
    python -m tests.endurance.fuzz --kinds run_json --seed 0 --only 123

The trials of one kind run in one process, which is started anew when one of them ends or hangs it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import re
import resource
import shutil
import sys
import tempfile
import traceback
from typing import Any, Dict, Optional, Tuple

from tests.endurance import trials
from tests.endurance.fuzz_inputs import SUBJECTS
from tests.endurance.trials import Failed, Trial

HANG_SECONDS = 90.0  # of a machine that others load as well
MOST_BYTES = 1 << 29  # that a spoiled input of some kilobytes may take
ADDRESS_BYTES = 6 << 30  # of virtual memory beyond that of the libraries: protects the machine


def serve(kind: str, folder: str, pipe: Any) -> None:
    """The child: makes trials of `kind` as their random generators come, and answers (outcome, reason)."""
    os.chdir(os.path.join(folder, "a", "b", "c", "d"))  # what ../../etc means stays inside
    log = os.open(os.path.join(folder, "output"), os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(XDG_CACHE_HOME=os.path.join(folder, "cache"), TF_CPP_MIN_LOG_LEVEL="2", COLUMNS="100")
    subject = SUBJECTS[kind](os.path.join(folder, "files"))
    for number in range(3):  # loads what is loaded once
        with contextlib.suppress(Exception):
            subject.attempt(random.Random(number))
    used = int(_status("VmSize")) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_BYTES, resource.RLIM_INFINITY))
    pipe.send("ready")
    while True:
        chance = pipe.recv()
        os.truncate(log, 0)
        pipe.send(answer(subject, chance, log))


def answer(subject: Any, chance: random.Random, log: int) -> Tuple[str, str]:
    """What came of one trial, a word, and why if that is "failed".

    Args:
        log: descriptor of what the process writes.
    """
    from densenet_keras.data.records import BadRecord
    from densenet_keras.errors import RunError, UsageError

    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # VmHWM counts from here
    before = _status("VmRSS")
    try:
        outcome = subject.attempt(chance) or "right"
    except (UsageError, RunError, BadRecord) as error:
        outcome = "refused"
        if not str(error).strip():
            return "failed", f"an empty {type(error).__name__}"
    except Failed as error:
        return "failed", str(error)
    except BaseException as error:  # noqa: B036 - the finding
        return "failed", "".join(traceback.format_exception(type(error), error, error.__traceback__)[-6:])
    taken = (_status("VmHWM") - before) * 1024
    if taken > MOST_BYTES:
        return "failed", f"took {taken >> 20} MB"
    sys.stdout.flush()
    sys.stderr.flush()
    said = os.pread(log, 100_000, 0).decode("utf-8", "replace")
    if "Traceback (most recent call last)" in said:
        return "failed", said[-2000:]
    return outcome, ""


def _status(name: str) -> int:
    """A figure of /proc/self/status, in KB."""
    with open("/proc/self/status", encoding="utf-8") as file:
        found = re.search(rf"^{name}:\s+(\d+) kB", file.read(), re.MULTILINE)
    assert found
    return int(found[1])


class Children:
    """A process for each kind, kept between its trials."""

    def __init__(self) -> None:
        self._running: Dict[str, Tuple[Any, Any, str]] = {}

    def attempt(self, trial: Trial) -> Optional[str]:
        """Has the child of its kind make the trial."""
        process, pipe, folder = self._running.get(trial.kind) or self._start(trial.kind)
        try:
            pipe.send(trial.random)
            if not pipe.poll(HANG_SECONDS):
                raise Failed(f"no end after {HANG_SECONDS:.0f} s")
            outcome, reason = pipe.recv()
        except (EOFError, ConnectionError):
            process.join()
            with open(os.path.join(folder, "output"), encoding="utf-8", errors="replace") as file:
                end = file.read()[-1500:]
            self._stop(trial.kind)
            raise Failed(f"the process died, exit code {process.exitcode}: {end}") from None
        except Failed:
            self._stop(trial.kind)
            raise
        if outcome == "failed":
            raise Failed(reason)
        return outcome

    def _start(self, kind: str) -> Tuple[Any, Any, str]:
        self.close()  # one kind at a time: several hold TensorFlow
        folder = tempfile.mkdtemp(prefix="densenet-fuzz-")
        os.makedirs(os.path.join(folder, "a", "b", "c", "d"))
        os.makedirs(os.path.join(folder, "files"))
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(kind, folder, theirs), daemon=True)
        process.start()
        theirs.close()
        self._running[kind] = process, ours, folder
        try:
            assert ours.poll(10 * HANG_SECONDS)
            ours.recv()
        except (AssertionError, EOFError):
            with open(os.path.join(folder, "output"), encoding="utf-8", errors="replace") as file:
                said = file.read()
            self._stop(kind)
            raise SystemExit(f"{kind} could not be prepared:\n{said}") from None
        return self._running[kind]

    def _stop(self, kind: str) -> None:
        process, pipe, folder = self._running.pop(kind)
        process.kill()
        process.join()
        pipe.close()
        shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Ends all."""
        for kind in list(self._running):
            self._stop(kind)


def main() -> int:
    """Makes the trials that the arguments ask for."""
    parser = trials.arguments(__doc__.split("\n")[0], list(SUBJECTS), default_trials=100)
    options = parser.parse_args()
    with contextlib.closing(Children()) as children:
        return trials.carry_out("fuzz", options, list(SUBJECTS), children.attempt, by_kind=True)


if __name__ == "__main__":
    sys.exit(main())
