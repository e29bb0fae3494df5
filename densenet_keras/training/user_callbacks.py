"""A user's own Keras callbacks: loading, refusing, and preparing them for a sunk loop."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from typing import Any, Callable, List, Optional, Sequence

import tensorflow as tf

from densenet_keras.errors import RunError, UsageError
from densenet_keras.schedule import StepLogs

_RATE_FROM_THE_HOST = (
    "sets the learning rate from the host between batches, which cannot reach into a loop of steps that "
    "runs on the device; the rate is computed in the step instead: use --lr, --lr_update, --warmup_epochs "
    "and --T_max"
)


# What of a Keras model needs a compiled model or nodes of its own, which the graph of a run has not.
_NOT_IN_TRAINING = (
    "compile", "evaluate", "evaluate_generator", "fit", "fit_generator", "predict", "predict_generator",
    "predict_on_batch", "test_on_batch", "train_on_batch",
)  # fmt: skip


def load(reference: str) -> List[tf.keras.callbacks.Callback]:
    """The list that function `reference`, "module:function", returns.

    The module is looked for in the current folder last, so that none there takes another's place.
    Called on every rank.

    Raises:
        UsageError: no such module or function, or it returns something else than Keras callbacks.
    """
    module_name, colon, function_name = reference.partition(":")
    if not (module_name and colon and function_name):
        raise UsageError(f"--callbacks {reference} must read module:function, such as my_callbacks:create")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)  # last: a socket.py there is none of anybody's business
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        missing = error.name or ""
        its_own = module_name == missing or module_name.startswith(f"{missing}.")
        remedy = (
            f"it must lie in {folder} or on PYTHONPATH"
            if its_own
            else f"install what it imports into this Python, {sys.executable}"
        )
        raise UsageError(
            f"--callbacks {reference}: module {module_name} cannot be imported ({error}); {remedy}"
        ) from error
    function = getattr(module, function_name, None)
    if function is None:
        raise UsageError(
            f"--callbacks {reference}: {module.__file__} defines no {function_name}; name a function there "
            "that returns a list of Keras callbacks"
        )
    if not callable(function):
        raise UsageError(
            f"--callbacks {reference}: {function_name} is a {type(function).__name__}, not a function; it "
            "must be one that returns a list of Keras callbacks"
        )
    callbacks = function()
    check(callbacks, f"--callbacks {reference}")
    return list(callbacks)


def check(callbacks: object, source: str) -> None:
    """Passes a list of callbacks that can work in a sunk loop.

    Args:
        source: where the list comes from, for the message.

    Raises:
        UsageError: it is not a list of Keras callbacks, or holds one that cannot work.
    """
    if not isinstance(callbacks, (list, tuple)):
        raise UsageError(
            f"{source}: got a {type(callbacks).__name__}; return a list of tf.keras.callbacks.Callback"
        )
    for callback in callbacks:
        if not isinstance(callback, tf.keras.callbacks.Callback):
            raise UsageError(
                f"{source}: the list holds a {type(callback).__name__}, which is not a "
                "tf.keras.callbacks.Callback (those of the separate keras package are not either)"
            )
        reason = refusal(callback)
        if reason:
            raise UsageError(f"{source}: {type(callback).__name__} {reason}")


def refusal(callback: tf.keras.callbacks.Callback) -> Optional[str]:
    """Why `callback` cannot work here and what to use instead; None if it can."""
    kinds = tf.keras.callbacks
    if isinstance(callback, (kinds.LearningRateScheduler, kinds.ReduceLROnPlateau)):
        return _RATE_FROM_THE_HOST
    if isinstance(callback, kinds.TensorBoard):
        if callback.histogram_freq:
            return (
                "with histogram_freq needs a compiled model and its own forward pass; leave it at 0 "
                "(scalars and the graph are written)"
            )
        if callback.embeddings_freq:
            return "with embeddings_freq adds variables to a graph that is already complete; leave it at 0"
    return None


def prepare(
    callbacks: Sequence[tf.keras.callbacks.Callback], model: tf.keras.Model, is_primary: bool
) -> List[tf.keras.callbacks.Callback]:
    """What to hand to the loop on this rank so that `callbacks` work unchanged; [] for none.

    To be called by every rank, once variables hold their first values and before the graph is final,
    with the training session set as Keras's: reading and writing weights adds nodes to the graph the
    first time, so both happen here once.

    Callbacks that only write files or to the terminal stay on the primary: Keras's CSVLogger,
    ProgbarLogger, RemoteMonitor and TensorBoard, and any whose `_chief_worker_only` is True (TensorFlow's
    own mark). All others run on every rank, as those that read or write weights must. ModelCheckpoint
    too: its files on other ranks go to a scratch folder.
    """
    if not callbacks:
        return []
    kinds = tf.keras.callbacks
    weights_files = [c for c in callbacks if isinstance(c, kinds.ModelCheckpoint)]
    for name in _NOT_IN_TRAINING:
        setattr(model, name, _refusing(name))
    _warm_up(model, any(c.save_weights_only for c in weights_files))
    if is_primary:
        return [_CsvColumns(callbacks), *callbacks]
    kept = [c for c in callbacks if not _only_on_primary(c)]
    if not weights_files:
        return kept
    scratch = _Scratch()
    for callback in weights_files:
        callback.filepath = os.path.join(scratch.folder, os.path.basename(callback.filepath))
    return [*kept, scratch]


def _refusing(name: str) -> Callable[..., Any]:
    def refuse(*arguments: Any, **named: Any) -> Any:
        raise RunError(
            f"a callback calls model.{name}, which the model in training cannot do: its batch normalisation "
            "is in training form and its graph is complete. Load the weights into a model of its own: "
            f"densenet_keras.load_model(LOG_DIR).{name}(...) after a checkpoint, or set_weights on one that "
            "was loaded before"
        )

    return refuse


def _warm_up(model: tf.keras.Model, saves_weights: bool) -> None:
    """Adds the nodes that get_weights, set_weights and save_weights need."""
    model.set_weights(model.get_weights())
    if saves_weights:
        with tempfile.TemporaryDirectory() as folder:
            model.save_weights(os.path.join(folder, "weights"), save_format="tf")


def _only_on_primary(callback: tf.keras.callbacks.Callback) -> bool:
    kinds = tf.keras.callbacks
    writers = (kinds.CSVLogger, kinds.ProgbarLogger, kinds.RemoteMonitor)
    return isinstance(callback, writers) or bool(getattr(callback, "_chief_worker_only", False))


class _CsvColumns(tf.keras.callbacks.Callback):
    """Gives CSVLogger columns for evaluation although the first epoch may have none.

    It fixes its columns at the first epoch; those not known in an epoch then hold nan.
    """

    def __init__(self, callbacks: Sequence[tf.keras.callbacks.Callback]) -> None:
        super().__init__()
        self._loggers = [c for c in callbacks if isinstance(c, tf.keras.callbacks.CSVLogger)]

    def on_epoch_end(self, epoch: int, logs: StepLogs) -> None:
        for logger in self._loggers:
            if logger.keys is None:
                logger.keys = sorted({*logs, *self.params["metrics"]})


class _Scratch(tf.keras.callbacks.Callback):
    """A folder that is emptied after every epoch and removed at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="densenet-scratch-")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for name in os.listdir(self.folder):
            os.remove(os.path.join(self.folder, name))

    def close(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
