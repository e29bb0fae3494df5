"""The run folder of weights from elsewhere: run.json, where they came from, a checkpoint of step 0."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

import numpy as np
import tensorflow as tf

from densenet_keras import files
from densenet_keras.backends import cpu
from densenet_keras.checkpoints import run_folder, saver
from densenet_keras.commands.train import initialisers
from densenet_keras.data import classes
from densenet_keras.network.densenet import build_densenet
from densenet_keras.settings.config import Config

REPORT = "import.json"


def write(
    config: Config,
    values: Dict[str, np.ndarray],
    report: Dict[str, Any],
    names: Optional[List[str]],
) -> str:
    """Leaves the run folder of `config`; the checkpoint last, because it is what others look for.

    Args:
        values: of the variables that are not left random.
        report: what REPORT holds.
        names: of the classes, if known.

    Returns:
        The path of the checkpoint.

    Raises:
        UsageError, RunError: the folder cannot be written.
    """
    log_dir = config.run.log_dir
    graph = tf.Graph()
    with graph.as_default():
        tf.compat.v1.set_random_seed(config.data.seed)
        tf.keras.backend.set_learning_phase(0)
        model = build_densenet(config.model, seed=config.data.seed)
        global_step = tf.compat.v1.train.get_or_create_global_step()
        variables = {variable.op.name: variable for variable in [*model.weights, global_step]}
        about = {"epoch": 0.0, "configuration": config.to_json(), "class_names": names}
        writer = saver.Saver(variables, log_dir, keep=0, about=lambda step: about)
        initialise = initialisers()
    run_folder.write_configuration(config)
    files.write_json(os.path.join(log_dir, REPORT), report)
    classes.write(log_dir, names, config.data.label_offset)
    with cpu.session(graph) as session:
        session.run(initialise)
        writer.fill(session, values)
        path = writer.save(session, 0, is_primary=True)
    assert path is not None, "the primary writes"
    return path
