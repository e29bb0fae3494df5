"""What a run does when a step has gone wrong: find the step, name what began it, stop or go back."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf

from densenet_keras import files
from densenet_keras.backends.base import Backend, Step
from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints.saver import Saver
from densenet_keras.data.order import Stream
from densenet_keras.errors import RunError
from densenet_keras.rank import Rank
from densenet_keras.schedule import RunPlan
from densenet_keras.settings.config import Config
from densenet_keras.settings.rules import counted
from densenet_keras.training.agreement import HostSum
from densenet_keras.training.divergence import Detector, Diverged
from densenet_keras.training.origin import Origin, first_place

FILE_NAME = "nonfinite.jsonl"
REWIND = "rewind"

# Steps between two copies of the state that the host keeps to look for a step from. A copy takes about as
# long as reading the variables once, so this many steps make it a thousandth of the time or less.
KEPT_EVERY_STEPS = 100
SAVING_SECONDS = 600.0  # that a checkpoint may take, unless earlier ones took long as well
_PICTURES_NAMED = 3


class Parts(NamedTuple):
    """What of a training session is needed to repeat its steps."""

    session: tf.compat.v1.Session
    backend: Backend
    plan: RunPlan
    model: tf.keras.Model
    step: Step
    stream: Stream
    start_stream: tf.Operation  # begins the batches anew where `stream` says
    saver: Saver
    sums: HostSum


class _State(NamedTuple):
    step: int
    values: Dict[str, np.ndarray]


class Recovery:
    """Saves checkpoints that are good, and knows what to do when a step was not.

    On every rank, with the same calls in the same order: all of them stop, or go back together.
    """

    def __init__(
        self,
        parts: Parts,
        rank: Rank,
        config: Config,
        describe: Callable[[int, int], Sequence[str]],
        first_step: int,
    ) -> None:
        """
        Args:
            describe: names the pictures of a step and rank, in order; empty if they have no names.
            first_step: the global step that training starts at.
        """
        self._parts, self._rank, self._describe = parts, rank, describe
        self._rewinds = config.run.on_nonfinite == REWIND
        self._max_rewinds = config.run.max_rewinds
        self._log_dir = config.run.log_dir
        self._timeout_seconds = float(config.device.first_step_timeout_seconds)
        self._detector = Detector()
        self._kept: Optional[_State] = None
        # Of the one kind that reads often: a second set of fetches would be a second graph to prepare.
        self._read: Callable[[], Dict[str, np.ndarray]] = functools.partial(parts.saver.read, parts.session)
        if parts.backend.repeats_steps:
            self._read = parts.saver.reader(parts.session)
        self._chunk_start = first_step
        self._good_step = _regular_checkpoint(self._log_dir, parts.plan, first_step)

    def begin(self) -> None:
        """Called before the first step: a run that may go back needs a checkpoint to go back to."""
        if self._rewinds and self._good_step is None:
            self.save(self._chunk_start)
            self._good_step = self._chunk_start

    def before(self, start: int) -> None:
        """Called before the chunk that starts at global step `start`."""
        self._chunk_start = start
        if not self._parts.backend.repeats_steps:
            return
        if self._kept is None or start - self._kept.step >= KEPT_EVERY_STEPS:
            self._kept = _State(start, self._read())

    def check(self, step: int, metrics: Mapping[str, float]) -> None:
        """Raises Diverged if the chunk that ended at `step` went wrong; the same on all ranks."""
        what = self._detector.problem(metrics)
        if what is not None:
            raise Diverged(self._chunk_start, step, what)

    def save(self, step: int) -> None:
        """Saves the state of global step `step`, unless it is not finite on any rank.

        Raises:
            Diverged: it is not; nothing was saved.
            RunError: see `Saver.write`.
        """
        what = f"saving the checkpoint of step {step}"
        with self._rank.watchdog.phase(what, SAVING_SECONDS, kind="saving"):
            values = self._read()
            broken = self._parts.saver.not_finite(values)
            if self._on_any_rank(broken is not None):
                what = f"variable {broken} is" if broken else "a variable of another rank is"
                raise Diverged(self._chunk_start, step, f"{what} no longer finite")
            spare = self._good_step if self._rewinds else None
            self._parts.saver.write(
                self._parts.session, values, step, self._rank.topology.is_primary, spare=spare
            )
        if self._parts.backend.repeats_steps:
            self._kept = _State(step, values)
        if _is_regular(self._parts.plan, step):
            self._good_step = step

    def recover(self, problem: Diverged) -> Tuple[int, str]:
        """Goes back to the last regular checkpoint, behind the data that led to `problem`.

        Returns:
            The global step to go on from, and what happened, in words.

        Raises:
            RunError: the run is to end instead; what happened and what to do.
        """
        found = self._find(problem) if self._parts.backend.repeats_steps else None
        words = f"{problem.what} {self._told(problem, found)}"
        stream = self._parts.stream
        if not self._rewinds:
            raise RunError(f"{words}. {self._remedy()}")
        if stream.rewinds >= self._max_rewinds:
            raise RunError(
                f"{words}. The run has gone back {counted(stream.rewinds, 'time')} already (--max_rewinds). "
                f"{self._remedy()}"
            )
        back = self._good_step
        assert back is not None, "begin() has saved one"
        skipped_steps = (found.step if found else problem.step) - back
        with self._phase(f"going back to step {back}"):
            path = os.path.join(self._log_dir, f"{checkpoint_files.BASENAME}-{back}")
            self._parts.saver.restore(self._parts.session, path)
            if self._rank.topology.is_primary:
                _delete_after(self._log_dir, back)
            stream.skipped_images += skipped_steps * self._parts.plan.global_batch
            stream.rewinds += 1
            self._kept = None
            # A backend that cannot begin its stream anew goes on with it: it stands behind these data.
            if self._parts.backend.repeats_steps:
                self._enter(back)
        return back, (
            f"{words}; going back to step {back}, without the {counted(skipped_steps, 'step')} of data "
            f"since then ({stream.rewinds} of at most {counted(self._max_rewinds, 'rewind')})"
        )

    def _find(self, problem: Diverged) -> Optional[Origin]:
        """The step that went wrong, and where in it, by repeating the last steps one by one."""
        state = self._kept
        assert state is not None, "before() keeps one"
        self._fill(state)
        for step in range(state.step, problem.step):
            with self._phase(f"looking for the step that went wrong, {step + 1} of {problem.step}"):
                metrics = self._parts.backend.run_steps(self._parts.session, self._parts.step, 1).metrics
                what = self._detector.problem(metrics)
                after = _State(step + 1, self._read())
                broken = self._parts.saver.not_finite(after.values)
                if self._on_any_rank(what is not None or broken is not None):
                    return self._origin(state, what or f"variable {broken} is not finite any more", after)
            state = after
        return None

    def _origin(self, before: _State, what: str, after: _State) -> Origin:
        """Where in the step from `before` to `after` it began."""
        self._fill(before)
        parts = self._parts
        place = first_place(parts.session, parts.model, parts.backend, parts.sums)
        names = [variable.op.name for variable in parts.model.trainable_weights]
        broken = [name for name in names if not np.all(np.isfinite(after.values[name]))]
        return Origin(after.step, what, place, broken[-1] if broken else None)

    def _told(self, problem: Diverged, found: Optional[Origin]) -> str:
        """Which step, layer and pictures it was; also leaves them in FILE_NAME."""
        first, last = self._chunk_start + 1, problem.step
        when = f"at step {last}" if first >= last else f"in one of the steps {first} to {last}"
        if found is not None:
            return self._told_origin(found)
        in_row = self._parts.backend.steps_not_finite
        if in_row:
            return self._told_counted(last - in_row + 1, problem)
        self._note({"step": last, "what": problem.what})
        if self._parts.backend.repeats_steps:
            return (
                f"{when}, and is not when these steps are run once more: a fault of the device or its "
                "memory, or the random numbers of --drop_rate"
            )
        return f"{when}; --iterations_per_loop 1 would tell which"

    def _told_counted(self, begun: int, problem: Diverged) -> str:
        """The step that the device has counted back to, and all pictures of it."""
        size = self._rank.topology.size
        pictures = [name for rank in range(size) for name in self._describe(begun - 1, rank)]
        self._note({"step": begun, "what": problem.what, "pictures": pictures})
        when = f"at step {begun}" if begun == problem.step else f"since step {begun}"
        return f"{when}, whose pictures {self._file} lists" if pictures else when

    def _told_origin(self, found: Origin) -> str:
        size, place = self._rank.topology.size, found.place
        named = {
            rank: list(self._describe(found.step - 1, rank))
            for rank in ([place.rank] if place else range(size))
        }
        pictures = [name for names in named.values() for name in names]
        if place and pictures:
            pictures = [pictures[row] for row in place.rows]
        self._note(
            {
                "step": found.step,
                "what": found.what,
                "layer": place.layer if place else None,
                "rank": place.rank if place else None,
                "pictures": pictures,
            }
        )
        if not pictures:
            return f"at step {found.step}: {found.words}"
        shown = ", ".join(pictures[:_PICTURES_NAMED])
        more = f", and {len(pictures) - _PICTURES_NAMED} more" if len(pictures) > _PICTURES_NAMED else ""
        return (
            f"at step {found.step}: {found.words}; {counted(len(pictures), 'picture')} concerned "
            f"({self._file} lists them): {shown}{more}"
        )

    def _remedy(self) -> str:
        newest = checkpoint_files.newest(self._log_dir)
        kept = f"The checkpoint of step {newest[1]} is the last good one" if newest else "Nothing was saved"
        other = "more --max_rewinds" if self._rewinds else "--on_nonfinite rewind"
        return (
            f"{kept}; run the same command again with a lower --lr or with --warmup_epochs 5, in mixed "
            f"precision with --loss_scale, or with {other}, which leaves out these pictures"
        )

    def _note(self, event: Dict[str, Any]) -> None:
        if self._rank.topology.is_primary:
            with contextlib.suppress(OSError):
                log = files.GrowingFile(self._file)
                log.append(json.dumps(event) + "\n")
                log.close()

    @property
    def _file(self) -> str:
        return os.path.join(self._log_dir, FILE_NAME)

    def _fill(self, state: _State) -> None:
        self._parts.saver.fill(self._parts.session, state.values)
        self._enter(state.step)

    def _enter(self, step: int) -> None:
        self._parts.stream.begin_at(step)
        self._parts.session.run(self._parts.start_stream)

    def _on_any_rank(self, flag: bool) -> bool:
        with self._rank.watchdog.waiting():
            return bool(self._parts.sums(self._parts.session, {"found": [int(flag), 0]})["found"][0])

    @contextlib.contextmanager
    def _phase(self, what: str) -> Iterator[None]:
        with self._rank.watchdog.phase(what, self._timeout_seconds):
            yield


def _delete_after(log_dir: str, step: int) -> None:
    """Deletes the checkpoints of later steps, which would count as the newest."""
    for each in checkpoint_files.of_run(log_dir):
        if each.step > step:
            checkpoint_files.delete(each.path)


def _is_regular(plan: RunPlan, step: int) -> bool:
    """Whether a run saves at `step` whether or not it is stopped there."""
    evaluates = plan.eval_interval_steps > 0 and step % plan.eval_interval_steps == 0
    return evaluates or step % plan.save_interval_steps == 0


def _regular_checkpoint(log_dir: str, plan: RunPlan, first_step: int) -> Optional[int]:
    """The last step with a checkpoint that an uninterrupted run would have gone back to.

    Without one, that which training starts from; None if it starts from none.
    """
    steps: List[int] = [each.step for each in checkpoint_files.of_run(log_dir) if each.step <= first_step]
    regular = [step for step in steps if _is_regular(plan, step)]
    return max(regular or steps, default=None)
