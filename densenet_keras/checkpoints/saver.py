"""TensorFlow V2 checkpoints, whole or absent: written by one rank, read and restored by all.

The files are those of tf.train.Saver: `model.ckpt-STEP.index`, `model.ckpt-STEP.data-00000-of-00001`
and the state file `checkpoint`; beside them a manifest. A checkpoint exists from the moment its index file
has its name.
"""

from __future__ import annotations

import difflib
import os
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf

from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import manifest, reader
from densenet_keras.checkpoints.files import Checkpoint, list_checkpoints, newest, resolve
from densenet_keras.errors import RunError, UsageError

__all__ = ["BodyReport", "Checkpoint", "Saver", "find_resumable", "list_checkpoints", "newest", "resolve"]

GLOBAL_STEP = reader.GLOBAL_STEP


class BodyReport(NamedTuple):
    """What `Saver.restore_body` did, as sorted names of model variables."""

    loaded: List[str]
    fresh: List[str]  # excluded by prefix, left as initialised


class Resumable(NamedTuple):
    """The checkpoint to continue a run from."""

    path: str
    step: int
    damaged: Tuple[Tuple[str, str], ...] = ()  # newer ones that cannot be read: path and reason


def find_resumable(log_dir: str) -> Optional[Resumable]:
    """The newest checkpoint of the run in `log_dir` whose every byte can be read; None if it has none at all.

    The same on all ranks that see the same files.

    Raises:
        UsageError: a checkpoint has the name of another step than its own.
        RunError: there are checkpoints, and all are damaged: a run must not start afresh over them; or one
            could not be read, which does not make it damaged.
    """
    damaged: List[Tuple[str, str]] = []
    for each in reversed(checkpoint_files.of_run(log_dir)):
        try:
            stored_step = reader.check_every_byte(each.path)
        except reader.Damaged as error:
            damaged.append((each.path, error.reason))
            continue
        if stored_step not in (None, each.step):
            raise UsageError(
                f"checkpoint {each.path} is named as that of step {each.step}, but it was saved at step "
                f"{stored_step}: somebody renamed it. Call its files "
                f"{checkpoint_files.BASENAME}-{stored_step}.* again, or move them out of --log_dir"
            )
        return Resumable(each.path, each.step, tuple(damaged))
    if damaged:
        path, reason = damaged[0]
        raise RunError(
            f"none of the {len(damaged)} checkpoints in {log_dir} can be read; of {path}: {reason}. "
            "Check the disk, copy them back, or choose another --log_dir to start afresh"
        )
    return None


class Saver:
    """Saves and restores the variables of one graph.

    Builds its nodes when constructed, so construct it before the graph is final and where the
    backend's placement applies. Writing is a host operation that is fed with what was read: what touches the
    variables is one read of all of them, and one run of their initialisers with other values fed, the same
    on every rank.
    """

    def __init__(
        self,
        variables: Dict[str, tf.Variable],
        log_dir: str,
        keep: int,
        optional: Sequence[str] = (),
        about: Callable[[int], Mapping[str, Any]] = lambda step: {},
    ) -> None:
        """
        Args:
            variables: by their name in the file, global_step among them; use `variable.op.name`, as
                tf.train.Saver does.
            log_dir: folder to save to.
            keep: newest checkpoints that stay; 0 keeps all.
            optional: names that a file to restore from may lack; they keep their values then.
            about: what the manifest of a step's checkpoint says beside step, files and versions; see
                `manifest.write`. Called on the primary.
        """
        if GLOBAL_STEP not in variables:
            raise ValueError(f"variables must hold {GLOBAL_STEP}")
        self._names = sorted(variables)
        self._log_dir, self._keep = log_dir, keep
        self._optional, self._about = frozenset(optional), about
        ordered = [variables[name] for name in self._names]
        self._shapes = {name: tuple(variables[name].shape.as_list()) for name in self._names}
        # What variables have already: a graph waits for each operation that is added to it.
        self._reads = [_read(variable) for variable in ordered]
        self._initial_values = [variable.initializer.inputs[1] for variable in ordered]
        self._assign = tf.group(*(variable.initializer for variable in ordered), name="checkpoint/restore")
        with tf.name_scope("checkpoint"), tf.control_dependencies(None), tf.device("/device:CPU:0"):
            self._prefix = tf.compat.v1.placeholder(tf.string, [], name="prefix")
            self._write = tf.raw_ops.SaveV2(
                prefix=self._prefix,
                tensor_names=self._names,
                shape_and_slices=[""] * len(self._names),
                tensors=self._reads,
            )

    def save(self, session: tf.compat.v1.Session, step: int, is_primary: bool) -> Optional[str]:
        """Reads all variables; on the primary also writes them as the checkpoint of `step`.

        Called by all ranks. Checkpoints beyond the newest `keep` are deleted.

        Returns:
            The path (prefix) of the checkpoint; None on other ranks.

        Raises:
            RunError: a variable is not finite, global_step is not `step`, or the folder cannot be
                written to. Nothing has been saved then and older checkpoints are as they were.
        """
        values = self.read(session)
        broken = self.not_finite(values)
        if broken is not None:
            raise RunError(
                f"variable {broken} is no longer finite at step {step}; nothing was saved. Run the same "
                "command again with a lower --lr to continue from the last checkpoint"
            )
        return self.write(session, values, step, is_primary)

    def read(self, session: tf.compat.v1.Session) -> Dict[str, np.ndarray]:
        """The values of all variables; called by all ranks."""
        return dict(zip(self._names, session.run(self._reads)))

    def reader(self, session: tf.compat.v1.Session) -> Callable[[], Dict[str, np.ndarray]]:
        """A function that reads as `read` does, in a third of the time where it does so often."""
        run = session.make_callable(self._reads)
        return lambda: dict(zip(self._names, run()))

    def not_finite(self, values: Mapping[str, np.ndarray]) -> Optional[str]:
        """The name of a variable that is not finite in `values`; None if all are."""
        for name, value in values.items():
            if np.issubdtype(value.dtype, np.floating) and not np.all(np.isfinite(value)):
                return name
        return None

    def write(
        self,
        session: tf.compat.v1.Session,
        values: Mapping[str, np.ndarray],
        step: int,
        is_primary: bool,
        spare: Optional[int] = None,
    ) -> Optional[str]:
        """The second half of `save`, with what `read` gave.

        Args:
            spare: step of a checkpoint that stays whatever its age.

        Raises:
            RunError: as `save`.
        """
        reached = int(values[GLOBAL_STEP])
        if reached != step:
            raise RunError(
                f"{GLOBAL_STEP} is {reached} where the host has counted {step} steps; the loop on the device "
                "did not run as many steps as it was asked to, and nothing was saved"
            )
        if not is_primary:
            return None
        path = os.path.join(self._log_dir, f"{checkpoint_files.BASENAME}-{step}")
        feed = {fed: values[name] for fed, name in zip(self._reads, self._names)}
        try:
            with checkpoint_files.publishing(path) as temporary:
                session.run(self._write, feed_dict={self._prefix: temporary, **feed})
                manifest.write(temporary, checkpoint_files.ENDINGS, self._described(path, step))
            checkpoint_files.write_state(self._log_dir, self._keep, spare)
        except (OSError, tf.errors.OpError) as error:
            raise RunError(
                f"checkpoint {path} could not be written: {reader.first_line(error)}; make room or choose "
                "another --log_dir, then run the same command again to continue"
            ) from error
        return path

    def restore(self, session: tf.compat.v1.Session, path: str) -> int:
        """Gives every variable its value in checkpoint `path`; called by all ranks.

        Returns:
            The global step in it.

        Raises:
            UsageError: the checkpoint lacks a variable or holds it in another shape.
            RunError: it cannot be read; `reader.Damaged` or `reader.Gone` where that is known.
        """
        with reader.reading(path) as opened:
            reader.refuse_object_based(path, opened)
            shapes = opened.get_variable_to_shape_map()
            missing = [n for n in self._names if n not in shapes and n not in self._optional]
            if missing:
                raise UsageError(
                    f"checkpoint {path} holds no {_several(missing)}; it is of another model or another "
                    "program. Give the --model and the sizes it was trained with (a run.json beside it would "
                    "tell), or start from it with --restore_path into a new --log_dir"
                )
            present = [n for n in self._names if n in shapes]
            self._check_shapes(path, shapes, present, "give the --model settings it was trained with")
            found = {name: opened.get_tensor(name) for name in present}
        self._fill(session, found)
        return int(found[GLOBAL_STEP])

    def restore_body(
        self,
        session: tf.compat.v1.Session,
        path: str,
        names: Sequence[str],
        exclude: Sequence[str],
    ) -> BodyReport:
        """Fills the model variables `names` from checkpoint `path`, except those with a prefix in `exclude`.

        Called by all ranks, once all variables are initialised. Optimizer state and global_step are
        not taken: training starts anew. All names and shapes are compared before anything is changed.

        Raises:
            UsageError: a prefix matches no variable, nothing in it matches, a variable is missing, or a
                shape differs.
            RunError: it cannot be read or is damaged.
        """
        for prefix in exclude:
            if prefix != GLOBAL_STEP and not any(name.startswith(prefix) for name in names):
                raise UsageError(
                    f"--restore_exclude {prefix}: no variable of this model begins so"
                    f"{_nearest(prefix, dict.fromkeys(names, []))}; correct it or leave it out"
                )
        wanted = sorted(name for name in names if not name.startswith(tuple(exclude)))
        fresh = sorted(set(names) - set(wanted))
        with reader.reading(path) as opened:
            reader.refuse_object_based(path, opened)
            shapes = opened.get_variable_to_shape_map()
            missing = [name for name in wanted if name not in shapes]
            if wanted and len(missing) == len(wanted):
                raise UsageError(
                    f"checkpoint {path} holds none of the {len(wanted)} variables of this model, such as "
                    f"{wanted[0]}; it holds {_several(sorted(shapes))}. Give the --model it was trained with"
                )
            if missing:
                raise UsageError(
                    f"checkpoint {path} lacks {_several(missing)}{_nearest(missing[0], shapes)}; give the "
                    "--model it was trained with, or leave such variables out with --restore_exclude PREFIX"
                )
            remedy = "leave it out with --restore_exclude, or give the --model it was trained with"
            self._check_shapes(path, shapes, wanted, remedy)
            found = {name: opened.get_tensor(name) for name in wanted}
        self._fill(session, found)
        return BodyReport(loaded=wanted, fresh=fresh)

    def fill(self, session: tf.compat.v1.Session, values: Dict[str, np.ndarray]) -> None:
        """Gives the variables in `values` these, all others what they are; called by all ranks.

        All variables must be initialised; names and shapes are the caller's care.
        """
        self._fill(session, values)

    def _described(self, path: str, step: int) -> Dict[str, Any]:
        name, versions = os.path.basename(path), {"tensorflow": tf.__version__}
        return {"checkpoint": name, "step": step, **self._about(step), "versions": versions}

    def _check_shapes(
        self, path: str, shapes: Dict[str, List[int]], names: Sequence[str], remedy: str
    ) -> None:
        for name in names:
            if tuple(shapes[name]) != self._shapes[name]:
                raise UsageError(
                    f"{name} has shape {self._shapes[name]} in the model and {tuple(shapes[name])} in "
                    f"checkpoint {path}; {remedy}"
                )

    def _fill(self, session: tf.compat.v1.Session, found: Dict[str, np.ndarray]) -> None:
        """Assigns all variables in one run, those not in `found` to what they are."""
        if len(found) == len(self._names):
            values = [found[name] for name in self._names]
        else:
            present = session.run(self._reads)
            values = [found.get(name, value) for name, value in zip(self._names, present)]
        session.run(self._assign, feed_dict=dict(zip(self._initial_values, values)))


def _read(variable: tf.Variable) -> tf.Tensor:
    """The value of `variable` as a tensor to fetch and to feed, without a new operation if it has one."""
    element = variable.graph.as_graph_element(variable)
    return variable.value() if element.dtype != element.dtype.base_dtype else element


def _several(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _nearest(name: str, candidates: Dict[str, List[int]]) -> str:
    close = difflib.get_close_matches(name, list(candidates), n=1)
    return f" (the nearest is {close[0]})" if close else ""
