"""Disks that are full, read-only, lost or fail in one call: an error in words, and nothing saved is lost.

    python -m tests.endurance.disk --trials 20 --seed 0
    python -m tests.endurance.disk --kinds save --trials 500

`save` saves a checkpoint in this process while one call fails. The other kinds run the command. Afterwards,
on a disk that works, the same command ends with the weights of a run that was left alone. `full` needs root.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, Iterator, Optional

from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.errors import RunError
from tests.endurance import kill, trials
from tests.endurance.kill import FINAL, STEPS, Run, read_lines
from tests.endurance.trials import Failed, Trial
from tests.support import commands, faulty_disk, records

KINDS = ["save", "call", "full", "moved"]
DISK_BYTES = 8 << 20


class Trials:
    """What the trials share: data, and the end of a run that was left alone."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._data_dir = records.write_noise(os.path.join(folder, "data"), train=40, validation=16)
        self._expected: Any = None
        self._saving: Optional[Saving] = None

    def attempt(self, trial: Trial) -> Optional[str]:
        """Makes one trial."""
        if trial.kind == "save":
            if self._saving is None:
                self._saving = Saving(os.path.join(self._folder, "saved"))
            return self._saving.attempt(trial.random)
        if self._expected is None:
            run = Run(os.path.join(self._folder, "whole"), self._data_dir, 1, {})
            if run.wait() != 0:
                sys.exit(f"the run that is left alone fails:\n{run.output()}")
            self._expected = kill.timeless(run.log_dir)
        with self._disk(trial.kind) as disk:
            log_dir = os.path.join(disk, "run")
            code = getattr(self, f"_{trial.kind}")(trial.random, log_dir)
            self._go_on(log_dir)
        return f"exit code {code}"

    @contextlib.contextmanager
    def _disk(self, kind: str) -> Iterator[str]:
        """A folder, on a small file system of its own for `full`."""
        folder = os.path.join(self._folder, "disk")
        os.makedirs(folder)
        if kind == "full":
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", folder], check=True)
        try:
            yield folder
        finally:
            if kind == "full":
                subprocess.run(["umount", "-l", folder], check=True)
            shutil.rmtree(folder, ignore_errors=True)

    def _call(self, chance: random.Random, log_dir: str) -> int:
        """One call of Python's fails, in the launcher or in its rank."""
        if chance.random() < 0.5:  # in a run that is continued
            self._start_and_stop(chance, log_dir)
        environ = faulty_disk.described(
            chance.choice(sorted(faulty_disk.OPERATIONS)), chance.choice((0, 0, 1, 2, 3, 5, 8, 13, 30)),
            chance.choice(faulty_disk.ERRORS), chance.random() < 0.5, log_dir, chance.random() < 0.8,
        )  # fmt: skip
        return self._ended(Run(log_dir, self._data_dir, 1, environ), environ[faulty_disk.VARIABLE])

    def _full(self, chance: random.Random, log_dir: str) -> int:
        """The disk fills up, before the start or at some step, and perhaps is freed again."""
        filler = os.path.join(os.path.dirname(log_dir), "filler")
        if chance.random() < 0.4:
            self._fill(chance, filler)
        run = Run(log_dir, self._data_dir, 1, {}, cwd=self._folder)
        step = chance.randrange(STEPS)
        while run.process.poll() is None and not os.path.exists(filler):
            if run.last_step() >= step:
                self._fill(chance, filler)
            time.sleep(0.01)
        if chance.random() < 0.3:
            time.sleep(chance.random())
            os.remove(filler)
        code = self._ended(run, f"full from step {step}")
        with contextlib.suppress(FileNotFoundError):
            os.remove(filler)
        return code

    @staticmethod
    def _fill(chance: random.Random, filler: str) -> None:
        """Leaves no room, or little."""
        left = chance.choice((0, 0, 4096, 100_000, 300_000))
        with open(filler, "wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(65536))
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(512))
            file.truncate(max(0, file.tell() - left))

    def _moved(self, chance: random.Random, log_dir: str) -> int:
        """The run folder is moved away at some step, and comes back."""
        run = Run(log_dir, self._data_dir, 1, {})
        step = chance.randrange(STEPS)
        while run.process.poll() is None and run.last_step() < step:
            time.sleep(0.01)
        with contextlib.suppress(FileNotFoundError):
            os.rename(log_dir, log_dir + ".away")
        code = self._ended(run, f"moved away at step {step}")
        if os.path.exists(log_dir + ".away"):
            shutil.rmtree(log_dir, ignore_errors=True)
            os.rename(log_dir + ".away", log_dir)
        return code

    def _start_and_stop(self, chance: random.Random, log_dir: str) -> None:
        run = Run(log_dir, self._data_dir, 1, {})
        step = chance.randrange(1, STEPS)
        while run.process.poll() is None and run.last_step() < step:
            time.sleep(0.01)
        run.destroy()

    @staticmethod
    def _ended(run: Run, what: str) -> int:
        try:
            code = run.wait()
            if code not in (0, 1, 2):
                raise Failed(f"{what}: exit code {code}: {run.output()[-1500:]}")
            if code != 0 and "error:" not in run.output() and "cannot" not in run.output():
                raise Failed(f"{what}: exit code {code} without a reason: {run.output()[-1500:]}")
        except Failed as error:
            raise Failed(f"{what}: {error}") from error
        finally:
            run.destroy()
        return code

    def _go_on(self, log_dir: str) -> None:
        """The same command on a disk that works."""
        run = Run(log_dir, self._data_dir, 1, {}, cwd=self._folder)
        try:
            if run.wait() != 0:
                raise Failed(f"the same command on a disk that works fails: {run.output()[-2000:]}")
        finally:
            run.destroy()
        try:
            commands.assert_same_variables(
                os.path.join(log_dir, FINAL), os.path.join(self._folder, "whole", FINAL)
            )
        except AssertionError as error:
            raise Failed(f"the end is another than that of a run that was left alone: {error}") from error
        strange = [line for line in kill.timeless(log_dir) if line not in self._expected]
        if strange:  # lines may be missing, as was said
            raise Failed(f"metrics.jsonl holds {strange[0]}, unlike a run that was left alone")
        if len(read_lines(log_dir)) > len(self._expected):
            raise Failed("metrics.jsonl holds lines twice")


class Saving:
    """Saves a small graph's checkpoint again and again, in this process."""

    def __init__(self, folder: str) -> None:
        import tensorflow as tf

        from densenet_keras.checkpoints.saver import Saver

        self._folder = folder
        with tf.Graph().as_default():
            self._step = tf.compat.v1.train.get_or_create_global_step()
            weights = tf.compat.v1.get_variable("weights", [50], initializer=tf.zeros_initializer())
            variables = {"global_step": self._step, "weights": weights}
            self._saver = Saver(variables, folder, keep=2)
            self._session = tf.compat.v1.Session()
            self._session.run(tf.compat.v1.global_variables_initializer())

    def attempt(self, chance: random.Random) -> str:
        """Saves steps 1 and 2, then 3 while a call fails; step 2 or 3 must be found whole, and 4 saved."""
        from densenet_keras.checkpoints import saver

        shutil.rmtree(self._folder, ignore_errors=True)
        self._save(1)
        self._save(2)
        operation = chance.choice(sorted(faulty_disk.OPERATIONS))
        fault = (operation, chance.randrange(12), chance.choice(faulty_disk.ERRORS), chance.random() < 0.5)
        outcome = "saved"
        with faulty_disk.failing(*fault, self._folder):
            try:
                self._save(3)
            except RunError:
                outcome = "refused"
            except Exception as error:
                raise Failed(f"{fault}: {error!r}") from error
        found = saver.find_resumable(self._folder)
        if found is None or found.damaged or found.step < (3 if outcome == "saved" else 2):
            raise Failed(f"{fault}: {outcome}, then found {found}")
        self._save(4)
        left = [name for name in os.listdir(self._folder) if name.startswith("saving.tmp")]
        if checkpoint_files.newest(self._folder) is None or left:
            raise Failed(f"{fault}: {left} are left over")
        return outcome

    def _save(self, step: int) -> None:
        self._step.load(step, self._session)
        self._saver.save(self._session, step, is_primary=True)


def main() -> int:
    """Makes the trials that the arguments ask for."""
    kinds = KINDS if os.geteuid() == 0 else [kind for kind in KINDS if kind != "full"]
    parser = trials.arguments(__doc__.split("\n")[0], kinds, default_trials=5)
    options = parser.parse_args()
    facts: Dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="densenet-disk-") as folder:
        return trials.carry_out("disk", options, kinds, Trials(folder).attempt, facts, by_kind=True)


if __name__ == "__main__":
    sys.exit(main())
