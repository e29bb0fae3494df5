"""Networks with arbitrary weights, and run folders that hold them."""

import json
import os

import numpy as np
import tensorflow as tf

from densenet_keras.checkpoints.saver import Saver
from densenet_keras.network.densenet import build_densenet
from densenet_keras.settings.config import Config


def arbitrary(name, shape, random):
    """Values that keep activations near 1 but make every variable count."""
    if name.endswith("kernel"):
        return random.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
    if name.endswith(("gamma", "moving_variance")):
        return random.uniform(0.5, 1.5, shape)
    return random.normal(size=shape) * 0.2


def assign(session, values):
    """Gives variables their values in one run, through their initialisers, without new nodes."""
    fed = {variable.initializer.inputs[1]: value for variable, value in values.items()}
    session.run([variable.initializer for variable in values], fed)


def assign_arbitrary(session, model, seed=0):
    """Gives all variables of `model` values that a seed decides."""
    random = np.random.RandomState(seed)
    assign(session, {v: arbitrary(v.op.name, v.shape.as_list(), random) for v in model.weights})


def write_run(folder, step=7, seed=0, **settings):
    """A run folder with run.json and one checkpoint of arbitrary weights, of densenet_tiny by default."""
    config = Config().replace(**{"model": "densenet_tiny", "log_dir": str(folder), **settings})
    os.makedirs(str(folder), exist_ok=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.keras.backend.set_learning_phase(0)
        model = build_densenet(config.model)
        global_step = tf.compat.v1.train.get_or_create_global_step()
        variables = {v.op.name: v for v in [*model.weights, global_step]}
        about = {"configuration": config.to_json()}
        saver = Saver(variables, str(folder), keep=0, about=lambda step: about)
        assign_arbitrary(session, model, seed)
        global_step.load(step, session)
        saver.save(session, step, is_primary=True)
    with open(os.path.join(str(folder), "run.json"), "w", encoding="utf-8") as file:
        json.dump(config.to_json(), file)
    return str(folder)


def pictures(count=4, size=32, seed=0):
    """Normalised pictures of noise: [count, size, size, 3] float32."""
    return np.random.RandomState(seed).normal(size=(count, size, size, 3)).astype(np.float32)
