"""load_model: the network of a run, its weights, and its independence of everything else."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import densenet_keras
from densenet_keras import load_model
from densenet_keras.errors import RunError, UsageError
from densenet_keras.network.densenet import build_densenet
from densenet_keras.settings.config import ModelConfig
from tests.support.networks import assign_arbitrary, pictures, write_run
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return write_run(folder, step=7, num_classes=5, growth_rate=6)


@pytest.fixture(scope="module")
def expected():
    """Logits of that run's network, by a session of one's own."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.keras.backend.set_learning_phase(0)
        x = tf.constant(pictures())
        model = build_densenet(ModelConfig("densenet_tiny", num_classes=5, growth_rate=6), x)
        assign_arbitrary(session, model)
        return session.run(model.output)


def test_a_run_gives_its_network_with_its_weights(run, expected):
    model = load_model(run)
    assert isinstance(model, tf.keras.Model)
    assert (model.step, os.path.basename(model.checkpoint)) == (7, "model.ckpt-7")
    np.testing.assert_allclose(model.predict(pictures()), expected, rtol=1e-5, atol=1e-5)


def test_a_checkpoint_of_several_is_named_by_its_path(run, expected, tmp_path):
    folder = write_run(tmp_path, step=1, num_classes=5, growth_rate=6)
    write_run(tmp_path, step=2, seed=9, num_classes=5, growth_rate=6)
    assert load_model(folder).step == 2
    first = load_model(os.path.join(folder, "model.ckpt-1"))
    np.testing.assert_allclose(first.predict(pictures()), expected, rtol=1e-5, atol=1e-5)


def test_models_are_independent_of_each_other_and_of_the_default_graph(run, expected, tmp_path):
    other = write_run(tmp_path, seed=3)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session():
        models = [load_model(run), load_model(other), load_model(run)]
        outputs = [model.predict(pictures()) for model in models]
        assert graph.get_operations() == []
    np.testing.assert_array_equal(outputs[0], outputs[2])
    np.testing.assert_allclose(outputs[0], expected, rtol=1e-5, atol=1e-5)
    assert outputs[1].shape == (4, 10)
    assert len({model.graph for model in models}) == 3


def test_eager_execution_does_not_disturb_it(run, tmp_path):
    code = (
        "import sys, numpy, tensorflow as tf, densenet_keras\n"
        "tf.compat.v1.enable_eager_execution()\n"
        "model = densenet_keras.load_model(sys.argv[1])\n"
        "numpy.save(sys.argv[2], model.predict(numpy.ones((1, 32, 32, 3), 'float32')))\n"
    )
    file = str(tmp_path / "logits.npy")
    subprocess.run([sys.executable, "-c", code, run, file], check=True, cwd=ROOT)
    here = load_model(run).predict(np.ones((1, 32, 32, 3), np.float32))
    np.testing.assert_allclose(np.load(file), here, rtol=1e-5, atol=1e-5)


def test_weights_of_another_checkpoint_can_be_taken(run, tmp_path):
    other = write_run(tmp_path, step=8, seed=3, num_classes=5, growth_rate=6)
    model = load_model(run)
    before = model.predict(pictures())
    model.load_weights(other)
    assert model.step == 8
    assert not np.allclose(model.predict(pictures()), before)
    model.load_weights(os.path.join(run, "model.ckpt-7"))
    np.testing.assert_array_equal(model.predict(pictures()), before)


def test_its_weights_fit_a_model_of_ones_own(run, expected):
    loaded = load_model(run)
    with tf.Graph().as_default(), tf.compat.v1.Session().as_default():
        own = densenet_keras.DenseNetTiny(classes=5, growth_rate=6)
        own.set_weights(loaded.get_weights())
        np.testing.assert_allclose(own.predict(pictures()), expected, rtol=1e-5, atol=1e-5)


def test_keras_files_go_out_and_in(run, expected, tmp_path):
    """What is saved is an ordinary model, which Keras opens without this class."""
    model = load_model(run)
    model.save(str(tmp_path / "model.h5"))
    model.save_weights(str(tmp_path / "weights.h5"))
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    model.load_weights(str(tmp_path / "weights.h5"))
    np.testing.assert_allclose(model.predict(pictures()), expected, rtol=1e-5, atol=1e-5)
    with tf.Graph().as_default(), tf.compat.v1.Session().as_default():
        plain = tf.keras.models.load_model(str(tmp_path / "model.h5"))
        assert type(plain) is tf.keras.Model
        np.testing.assert_allclose(plain.predict(pictures()), expected, rtol=1e-5, atol=1e-5)


def test_a_model_loaded_for_training_can_be_fitted(run):
    model = load_model(run, for_training=True)
    before = model.get_weights()
    model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(pictures(), np.arange(4), verbose=0)
    after = model.get_weights()
    assert all(not np.array_equal(old, new) for old, new in zip(before, after)), "moving averages too"


def test_a_model_loaded_to_predict_is_not_fitted_with_frozen_statistics(run):
    model = load_model(run)
    with pytest.raises(ValueError, match="for_training=True"):
        model.compile("sgd", "mse")


def test_without_run_json_it_says_what_to_do(run, tmp_path):
    folder = write_run(tmp_path)
    for name in ("run.json", "model.ckpt-7.manifest.json"):
        os.remove(os.path.join(folder, name))
    with pytest.raises(UsageError, match=r"holds neither a manifest nor a run\.json.*copy that of its run"):
        load_model(folder)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match="holds no checkpoint"):
        load_model(str(tmp_path))


def test_run_json_of_another_network_is_found_out(run, tmp_path):
    folder = write_run(tmp_path)
    os.remove(os.path.join(folder, "model.ckpt-7.manifest.json"))  # which would take precedence
    path = os.path.join(folder, "run.json")
    with open(path, encoding="utf-8") as file:
        values = json.load(file)
    values["model"]["growth_rate"] = 4
    with open(path, "w", encoding="utf-8") as file:
        json.dump(values, file)
    with pytest.raises(UsageError, match="has shape"):
        load_model(folder)


def test_a_damaged_checkpoint_is_named(tmp_path):
    folder = write_run(tmp_path)
    with open(os.path.join(folder, "model.ckpt-7.data-00000-of-00001"), "r+b") as file:
        file.truncate(1000)
    with pytest.raises(RunError, match=r"model\.ckpt-7 cannot be read"):
        load_model(folder)
