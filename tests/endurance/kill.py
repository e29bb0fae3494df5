"""Processes that die or are asked to stop at any moment: the run goes on and ends as one that was left alone.

    python -m tests.endurance.kill --trials 30 --seed 0 --ranks 1,2
    python -m tests.endurance.kill --kinds signal_some --seed 0 --ranks 1,2 --only 3

A trial starts a small run, does its harm, gives the same command again, and so two to four times; then it
leaves the run to end. Its weights, momentum, moving statistics and metrics lines must be those of a run that
was left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from densenet_keras.checkpoints import files as checkpoint_files
from tests.endurance import trials
from tests.endurance.trials import Failed, Trial
from tests.support import commands, records
from tests.support.paths import ROOT

STEPS, SAVED_EVERY, GLOBAL_BATCH = 40, 7, 8
FINAL = f"model.ckpt-{STEPS}"
LOST_SECONDS = 300.0  # a run of seconds; the machine may be loaded
GONE_SECONDS = 15.0  # until no rank is left of a launcher that died
# What a line of metrics.jsonl says of time, which no two runs share.
TIMED = ("images_per_second", "data_wait_fraction", "time", "seconds")
ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Before the command's handlers stand, a signal has its own way, and there is nothing to lose.
ASKED_CODES = (130, 143, *(-signum for signum in ASKING))
PYTHONS_START = ("Failed to import the site module", "Fatal Python error: init")


class Run:
    """One command with its ranks."""

    def __init__(
        self,
        log_dir: str,
        data_dir: str,
        ranks: int,
        environ: Dict[str, str],
        more: Sequence[str] = (),
        cwd: str = "",
    ) -> None:
        self.log_dir = log_dir
        arguments = [
            "--model", "densenet_tiny", "--num_classes", "10", "--intra_op_threads", "1",
            "--data_threads", "1", "--data_dir", data_dir, "--log_dir", log_dir,
            "--batch_size", str(GLOBAL_BATCH // ranks),
            "--iterations_per_loop", "1", "--save_checkpoints_steps", str(SAVED_EVERY), "--max_train_steps",
            str(STEPS), "--T_max", "8", "--mode", "train_and_evaluate", "--epochs_between_evals", "3",
            "--rank_size", str(ranks), *more,
        ]  # fmt: skip
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - as long as this object
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(ROOT, "train_keras.py"), *arguments],
            stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT, start_new_session=True,
            cwd=cwd or os.path.dirname(log_dir),
            env=commands.environment(TF_CPP_MIN_LOG_LEVEL="2", **environ),
        )  # fmt: skip

    def ranks(self) -> Dict[int, int]:
        """Process ids of the ranks, by rank; the command itself where it is one."""
        return commands.ranks_of(self.process)

    def last_step(self) -> int:
        """The step of the last line of metrics.jsonl; 0 without one."""
        lines = read_lines(self.log_dir)
        return int(lines[-1]["step"]) if lines else 0

    def saves(self) -> bool:
        """Whether a checkpoint is being written."""
        with contextlib.suppress(FileNotFoundError):  # it has not made its folder yet
            return any("saving.tmp" in name for name in os.listdir(self.log_dir))
        return False

    def wait(self) -> int:
        """The exit code, once the command has ended.

        Raises:
            Failed: it does not end, or what it wrote holds a traceback.
        """
        try:
            code = self.process.wait(LOST_SECONDS)
        except subprocess.TimeoutExpired:
            self.destroy()
            raise Failed(f"no end after {LOST_SECONDS:.0f} s: {self.output()[-1500:]}") from None
        _, traceback, shown = self.output().partition("Traceback (most recent call last)")
        if traceback and not self.ended_in_pythons_start():
            raise Failed(f"a traceback: {shown[-2500:]}")
        return code

    def ended_in_pythons_start(self) -> bool:
        """Whether ctrl-C came before Python had come to any line of ours: it shows a traceback then."""
        output = self.output()
        began = any(text in output for text in PYTHONS_START)
        return began and not any(name in output for name in ("train_keras.py", "densenet_keras/"))

    def output(self) -> str:
        self._output.seek(0)
        return self._output.read().decode("utf-8", "replace")

    def wait_until_gone(self) -> None:
        """Raises Failed if ranks outlive the command."""
        deadline = time.monotonic() + GONE_SECONDS
        while self.ranks():
            if time.monotonic() > deadline:
                left = self.ranks()
                self.destroy()
                raise Failed(f"ranks {left} outlive their launcher")
            time.sleep(0.05)

    def destroy(self) -> None:
        """Ends what is left."""
        for pid in [self.process.pid, *self.ranks().values()]:
            send(pid, signal.SIGKILL)
        self.process.wait()


def send(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def read_lines(log_dir: str) -> List[Dict[str, Any]]:
    """The whole lines of a metrics.jsonl."""
    try:
        with open(os.path.join(log_dir, "metrics.jsonl"), encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.endswith("\n")]
    except FileNotFoundError:
        return []


def timeless(log_dir: str) -> List[Dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMED} for line in read_lines(log_dir)]


class Harm(NamedTuple):
    """What is done to a run.

    Attributes:
        do: does it, given chance and run.
        codes: what the command may end with then; 0 always, as it may be through.
        loses_nothing: whether what was trained before must be saved.
        flags: that the command gets besides.
    """

    do: Callable[[random.Random, Run], None]
    codes: Tuple[int, ...]
    loses_nothing: bool
    flags: Tuple[str, ...] = ()


def _kill_group(chance: random.Random, run: Run) -> None:
    pids = [run.process.pid, *run.ranks().values()]
    chance.shuffle(pids)
    for pid in pids:
        send(pid, signal.SIGKILL)


def _kill_rank(chance: random.Random, run: Run) -> None:
    ranks = run.ranks()
    if ranks:
        send(ranks[chance.choice(sorted(ranks))], signal.SIGKILL)


def _kill_launcher(chance: random.Random, run: Run) -> None:
    send(run.process.pid, signal.SIGKILL)


def _signal_one(chance: random.Random, run: Run) -> None:
    send(chance.choice([run.process.pid, *run.ranks().values()]), chance.choice(ASKING))


def _signal_all(chance: random.Random, run: Run) -> None:
    """As systemd, timeout and Slurm do: every process, within a millisecond, some of them twice."""
    pids = [run.process.pid, *run.ranks().values()] * chance.choice((1, 1, 2))
    chance.shuffle(pids)
    signum = chance.choice(ASKING)
    for pid in pids:
        send(pid, signum)


def _signal_some(chance: random.Random, run: Run) -> None:
    """Any of them, in any order, with any of the signals, within half a second."""
    pids = [run.process.pid, *run.ranks().values()]
    for pid in chance.sample(pids, chance.randrange(1, len(pids) + 1)):
        send(pid, chance.choice(ASKING))
        time.sleep(chance.choice((0.0, 0.0, 0.01, 0.1)))


def _pause(chance: random.Random, run: Run) -> None:
    pids = [run.process.pid, *run.ranks().values()]
    chosen = chance.sample(pids, chance.randrange(1, len(pids) + 1))
    for pid in chosen:
        send(pid, signal.SIGSTOP)
    time.sleep(chance.uniform(0.2, 3.0))
    for pid in chosen:
        send(pid, signal.SIGCONT)


HARMS = {
    "kill_group": Harm(_kill_group, (-signal.SIGKILL,), False),
    "kill_rank": Harm(_kill_rank, (1,), False, ("--max_restarts", "0")),
    "restart": Harm(_kill_rank, (), False),  # the launcher starts the ranks again
    "kill_launcher": Harm(_kill_launcher, (-signal.SIGKILL,), False),
    "signal_one": Harm(_signal_one, ASKED_CODES, True),
    "signal_all": Harm(_signal_all, ASKED_CODES, True),
    "signal_some": Harm(_signal_some, ASKED_CODES, True),
    "pause": Harm(_pause, (), True),
    "in_place": Harm(_signal_one, ASKED_CODES, True),
}


class Trials:
    """What the trials share: data, and the end of a run that was left alone, for each number of ranks."""

    def __init__(self, folder: str, ranks: List[int], harms: int) -> None:
        self._folder, self._ranks, self._harms = folder, ranks, harms
        self._data_dir = records.write_noise(os.path.join(folder, "data"), train=40, validation=16)
        self._expected: Dict[int, Any] = {}
        self._seconds: Dict[int, float] = {}  # that the run took
        self.counts: Dict[str, int] = {}

    def attempt(self, trial: Trial) -> Optional[str]:
        """Makes one trial."""
        ranks = 1 if trial.kind == "in_place" else self._ranks[trial.number % len(self._ranks)]
        self._expect(ranks)
        chance = trial.random
        log_dir = os.path.join(self._folder, "run")
        shutil.rmtree(log_dir, ignore_errors=True)
        for _ in range(self._harms or chance.choice((2, 3, 4))):
            self._harm(trial.kind, ranks, chance, log_dir)
        self._finish(trial.kind, ranks, log_dir)
        if timeless(log_dir) != self._expected[ranks][1]:
            raise Failed("the metrics lines are others than those of a run that was left alone")
        try:
            commands.assert_same_variables(os.path.join(log_dir, FINAL), self._expected[ranks][0])
        except AssertionError as error:
            raise Failed(f"the end is another than that of a run that was left alone: {error}") from error
        return "right"

    def _start(self, kind: str, ranks: int, log_dir: str) -> Run:
        environ = {}
        if kind == "in_place":
            task = {"cluster": {"worker": ["127.0.0.1:2222"]}, "task": {"type": "worker", "index": 0}}
            environ["TF_CONFIG"] = json.dumps(task)
        return Run(log_dir, self._data_dir, ranks, environ, HARMS[kind].flags)

    def _expect(self, ranks: int) -> None:
        if ranks in self._expected:
            return
        log_dir = os.path.join(self._folder, f"whole_{ranks}")
        started = time.monotonic()
        run = Run(log_dir, self._data_dir, ranks, {})
        if run.wait() != 0:
            sys.exit(f"the run that is left alone fails:\n{run.output()}")
        self._seconds[ranks] = time.monotonic() - started
        self._expected[ranks] = os.path.join(log_dir, FINAL), timeless(log_dir)

    def _harm(self, kind: str, ranks: int, chance: random.Random, log_dir: str) -> None:
        harm = HARMS[kind]
        run = self._start(kind, ranks, log_dir)
        try:
            moment = self._wait_for_a_moment(chance, run, self._seconds[ranks])
            if run.process.poll() is None:
                trained = run.last_step()
                harm.do(chance, run)
                self.counts[f"{kind} {moment}"] = self.counts.get(f"{kind} {moment}", 0) + 1
            else:
                trained = STEPS
            code = run.wait()
            run.wait_until_gone()
            if code not in (0, *harm.codes) and not run.ended_in_pythons_start():
                raise Failed(f"{moment}: exit code {code}: {run.output()[-1500:]}")
            newest = checkpoint_files.newest(log_dir)
            saved = newest[1] if newest else 0
            if harm.loses_nothing and saved < trained:
                raise Failed(f"{moment}: {trained} steps were trained, {saved} saved: {run.output()[-1500:]}")
        finally:
            run.destroy()

    @staticmethod
    def _wait_for_a_moment(chance: random.Random, run: Run, seconds: float) -> str:
        """Waits, and says for what; returns at once when the run is through."""

        def until(condition: Callable[[], bool]) -> None:
            while run.process.poll() is None and not condition():
                time.sleep(0.003)

        moment = chance.choice(("starting", "training", "training", "saving", "evaluating", "ending"))
        if moment == "starting":
            time.sleep(chance.choice((chance.uniform(0.0, 0.3), chance.uniform(0.0, 0.8 * seconds))))
        elif moment == "training":
            step = chance.randrange(1, STEPS)
            until(lambda: run.last_step() >= step)
        elif moment == "saving":
            step = chance.randrange(0, STEPS)
            until(lambda: run.last_step() >= step)
            until(run.saves)
        elif moment == "evaluating":
            step = chance.choice((15, 30, STEPS))
            until(lambda: run.last_step() >= step)
            time.sleep(chance.uniform(0.0, 0.3))
        else:
            until(lambda: os.path.exists(os.path.join(run.log_dir, FINAL + ".index")))
            time.sleep(chance.uniform(0.0, 1.0))
        time.sleep(chance.choice((0.0, 0.01, 0.05)) * chance.random())
        return moment

    def _finish(self, kind: str, ranks: int, log_dir: str) -> None:
        run = self._start(kind, ranks, log_dir)
        try:
            code = run.wait()
        finally:
            run.destroy()
        if code != 0:
            raise Failed(f"the same command again ends with {code}: {run.output()[-2000:]}")


def main() -> int:
    """Makes the trials that the arguments ask for."""
    parser = trials.arguments(__doc__.split("\n")[0], list(HARMS), default_trials=10)
    parser.add_argument(
        "--ranks", default="1,2", help="numbers of ranks, trials take turns (default %(default)s)"
    )
    parser.add_argument("--harms", type=int, default=0, help="in each trial (default: two to four)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="densenet-kill-") as folder:
        made = Trials(folder, [int(text) for text in options.ranks.split(",")], options.harms)
        facts: Dict[str, Any] = {"ranks": options.ranks, "harm by moment": made.counts}
        return trials.carry_out("kill", options, list(HARMS), made.attempt, facts)


if __name__ == "__main__":
    sys.exit(main())
