"""From a checkpoint to a Keras model that can be used at once, whatever else the process does."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any, Callable, Iterator

import tensorflow as tf
from tensorflow.python.util import deprecation

from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import run_folder
from densenet_keras.checkpoints.saver import Saver
from densenet_keras.errors import UsageError
from densenet_keras.network.densenet import build_densenet
from densenet_keras.settings.config import Config


def load_model(path: str, for_training: bool = False) -> Model:
    """The Keras model of a run with the weights of its newest checkpoint, in a graph of its own.

        model = densenet_keras.load_model("run")
        logits = model.predict(pictures)  # [batch, height, width, 3] float32, normalised as in training

    Its methods find their own graph and session, so several models can be loaded, also under eager
    execution. To add to its graph, enter it: `with model.entered(): ...`.

    Weights alone: `model.load_weights(path)` takes those of another run or checkpoint of the same network
    (besides Keras' own files), and `other.set_weights(load_model(path).get_weights())` gives them to a
    model that you built yourself.

    Args:
        path: run folder, or one checkpoint in it (`run/model.ckpt-100`). The network's settings come from
            its manifest, or the run.json there.
        for_training: whether batch normalisation follows Keras' learning phase, as `fit` needs. Building
            takes twice as long then.

    Raises:
        UsageError: no checkpoint there, nothing that tells its network, or the two do not fit.
        RunError: the checkpoint is damaged.
    """
    path = os.path.expanduser(path)
    checkpoint = checkpoint_files.resolve(path)
    config = stored_network(checkpoint)
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph)
    with graph.as_default(), session.as_default():
        if not for_training:
            tf.keras.backend.set_learning_phase(0)
        built = build_densenet(config.model)
        with deprecation.silence():
            model = Model(built.inputs, built.outputs, name=built.name)
        model.attach(session, for_training)
    model.load_weights(checkpoint)
    return model


def stored_network(checkpoint: str) -> Config:
    """The configuration that `checkpoint` was trained with.

    Raises:
        UsageError: neither a manifest nor a run.json stands beside it, or it cannot be read.
    """
    config = run_folder.stored_config(checkpoint)
    if config is None:
        folder = run_folder.folder_of(checkpoint)
        raise UsageError(
            f"{folder} holds neither a manifest nor a {run_folder.RUN_JSON}, which tell the network of "
            f"{checkpoint}; copy that of its run there"
        )
    return config


def _entering(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def entered(self: Model, *arguments: Any, **named: Any) -> Any:
        with self.entered():
            return method(self, *arguments, **named)

    return entered


class Model(tf.keras.Model):
    """A `tf.keras.Model` with a graph and a session of its own, which its methods enter.

    Plain Keras takes the graph and session that happen to be the default ones, and there initialises anew
    whatever it does not know: a loaded model would predict from random weights. The class is called Model
    so that what `save` and `to_json` write is read as the ordinary class.

    Attributes:
        graph: that of the model.
        session: holds its variables.
        step: global step of the checkpoint that the weights are from.
        checkpoint: its path.
    """

    def attach(self, session: tf.compat.v1.Session, for_training: bool) -> None:
        """Makes `session` that of the model, and the default one here; called once, in its graph."""
        self.graph, self.session = session.graph, session
        self.step, self.checkpoint = -1, ""
        self._for_training = for_training
        step = tf.compat.v1.train.get_or_create_global_step()
        self._saver = Saver({v.op.name: v for v in [*self.weights, step]}, log_dir="", keep=0)
        session.run(step.initializer)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The model's graph and session as the default ones."""
        with self.graph.as_default(), self.session.as_default():
            yield

    def load_weights(self, filepath: str, by_name: bool = False) -> Any:
        """Takes the weights of a run folder, a checkpoint, or a file of Keras.

        Raises:
            UsageError: a checkpoint of another network.
            RunError: it is damaged.
        """
        path = os.path.expanduser(filepath)
        with self.entered():
            if not os.path.isdir(path) and not os.path.isfile(path + ".index") and os.path.isfile(path):
                return super().load_weights(path, by_name)
            path = checkpoint_files.resolve(path)
            self.step = self._saver.restore(self.session, path)
            self.checkpoint = path
        return None

    def compile(self, *arguments: Any, **named: Any) -> None:
        """As `tf.keras.Model.compile`.

        Raises:
            ValueError: the model was not loaded for training.
        """
        if not self._for_training:
            raise ValueError(
                "this model holds batch normalisation in its inference form alone; load it with "
                "densenet_keras.load_model(path, for_training=True) to compile and fit it"
            )
        with self.entered():
            super().compile(*arguments, **named)

    # What Keras runs in a session or adds to a graph.
    evaluate = _entering(tf.keras.Model.evaluate)
    evaluate_generator = _entering(tf.keras.Model.evaluate_generator)
    fit = _entering(tf.keras.Model.fit)
    fit_generator = _entering(tf.keras.Model.fit_generator)
    get_weights = _entering(tf.keras.Model.get_weights)
    predict = _entering(tf.keras.Model.predict)
    predict_generator = _entering(tf.keras.Model.predict_generator)
    predict_on_batch = _entering(tf.keras.Model.predict_on_batch)
    save = _entering(tf.keras.Model.save)
    save_weights = _entering(tf.keras.Model.save_weights)
    set_weights = _entering(tf.keras.Model.set_weights)
    test_on_batch = _entering(tf.keras.Model.test_on_batch)
    train_on_batch = _entering(tf.keras.Model.train_on_batch)
