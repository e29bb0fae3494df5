"""Exports in the programs that they are for: Keras Applications, and Torch where a Python has it."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.checkpoints.model import load_model
from densenet_keras.commands.main import run_command
from densenet_keras.exports import formats
from densenet_keras.exports.base import Subject
from densenet_keras.exports.formats import Options
from densenet_keras.exports.names import torch_state
from densenet_keras.network.weights import source
from densenet_keras.settings.config import ModelConfig
from tests.support.networks import pictures, write_run
from tests.support.paths import ROOT

# A Python with torch and torchvision, if it is not this one. There are none of both and TensorFlow 1.15.
TORCH_PYTHON = os.environ.get("DENSENET_KERAS_TORCH_PYTHON")


def exported(folder, name, **network):
    """Writes an export of arbitrary weights; returns the checkpoint's logits of `pictures()`."""
    model = load_model(write_run(folder / "run", **network))
    made = Subject(model, ModelConfig(**network), None, None, Options())
    formats.find(name).write(str(folder), made)
    return model.predict(pictures(2, network["image_size"]))


def test_keras_applications_takes_the_h5_file_as_its_weights(tmp_path):
    network = {"model": "densenet121", "num_classes": 7, "image_size": 32}
    expected = exported(tmp_path, "h5", **network)
    plain = tf.compat.v1.ConfigProto()  # Keras runs the session for every layer
    plain.graph_options.rewrite_options.disable_meta_optimizer = True
    with tf.Graph().as_default(), tf.compat.v1.Session(config=plain).as_default() as session:
        tf.keras.backend.set_learning_phase(0)
        model = tf.keras.applications.DenseNet121(
            weights=str(tmp_path / "model.h5"), classes=7, input_shape=(32, 32, 3)
        )
        found = session.run(model.output.op.inputs[0], {model.input: pictures(2)})
        names = {variable.op.name for variable in model.weights}
    assert set(source.open_source(str(tmp_path / "model.h5")).tensors.shapes) == names
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("way", ["h5", "npz", "torch"])
def test_what_was_exported_and_imported_again_has_the_same_logits(way, tmp_path):
    network = {"model": "densenet_tiny", "num_classes": 5, "image_size": 64, "bn_epsilon": 0.01}
    expected = exported(tmp_path, "h5" if way == "h5" else "npz", **network)
    file = str(tmp_path / f"model.{'h5' if way == 'h5' else 'npz'}")
    arguments = ["--preprocessing", "torch", "--image_size", "64"]
    if way == "torch":
        with np.load(file) as arrays:
            state = torch_state(dict(arrays.items()), bn_epsilon=0.01)
        file = str(tmp_path / "torch.npz")
        np.savez(file, **state)
    assert run_command(["import", file, "--log_dir", str(tmp_path / "imported"), *arguments]) == 0
    found = load_model(str(tmp_path / "imported")).predict(pictures(2, 64))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    print(f"{way}: largest difference {np.abs(found - expected).max() / np.abs(expected).max():.1e}")


def torch_python():
    if TORCH_PYTHON:
        return TORCH_PYTHON
    if importlib.util.find_spec("torch") and importlib.util.find_spec("torchvision"):
        return sys.executable
    return pytest.skip("torch and torchvision missing; DENSENET_KERAS_TORCH_PYTHON names a Python with them")


def test_torchvision_takes_the_state_dict_of_the_npz_file(tmp_path):
    python = torch_python()
    network = {"model": "densenet_tiny", "num_classes": 5, "image_size": 64, "bn_epsilon": 1e-3}
    expected = exported(tmp_path, "npz", **network)
    np.save(str(tmp_path / "pictures.npy"), pictures(2, 64))
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for script, *arguments in (
        ("scripts/npz_to_torch.py", "model.npz", "model.pth"),
        ("tests/parity/torch_reads.py", "model.pth", "pictures.npy", "logits.npy"),
    ):
        command = [python, os.path.join(ROOT, script), *arguments]
        subprocess.run(command, check=True, cwd=str(tmp_path), env=environ)
    found = np.load(str(tmp_path / "logits.npy"))
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    print(f"largest difference: {np.abs(found - expected).max() / np.abs(expected).max():.1e}")
