"""Each format, written and read here: the checkpoint's logits by every way into it.

That the command reads them in a process of its own is tested in tests/unit/commands/test_export.py.
"""

import json
import os
import re
import shlex

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.saved_model import loader_impl

from densenet_keras.checkpoints.model import load_model
from densenet_keras.exports import formats, om, pictures
from densenet_keras.exports.base import Subject
from densenet_keras.exports.comparison import compare
from densenet_keras.exports.formats import NO_GRAPH, OF_NORMALISED, Options
from densenet_keras.exports.inference import freeze, reference_logits
from densenet_keras.network.preprocessing import PREPROCESSINGS
from densenet_keras.settings.config import ModelConfig
from tests.support.networks import write_run

NAMES = ("oak", "pine", "larch", "beech", "Ahorn ä")
NETWORK = {"model": "densenet_tiny", "num_classes": 5, "image_size": 48, "bn_epsilon": 0.01}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), **NETWORK)


def made_of(run, graph, network):
    config, model = ModelConfig(**network), load_model(run)
    frozen = None if graph == NO_GRAPH else freeze(model, config, True, normalised=graph == OF_NORMALISED)
    return Subject(model, config, frozen, NAMES, Options(soc_version="Ascend310P3"))


@pytest.fixture(scope="module")
def subject(run):
    """From a format's name to what it is given; models are loaded once."""
    known = {}

    def of(name, **options):
        graph = formats.FORMATS[name].graph
        if graph not in known:
            known[graph] = made_of(run, graph, NETWORK)
        made = known[graph]
        return made._replace(options=made.options._replace(**options))

    return of


def exported(folder, made, name):
    """Logits by each way into an export of `made`, compared with the checkpoint's."""
    format = formats.find(name)
    missing = formats.missing_packages(name)
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")
    format.write(str(folder), made)
    shown = pictures.make(made.image_size, made.network)
    found = format.read(str(folder), shown)
    expected = reference_logits(made.model, shown.normalised)
    assert np.abs(expected).max() > 0.05
    assert np.abs(expected - expected[0]).max() > 1e-2 * np.abs(expected).max(), "the pictures must differ"
    return compare(expected, found, made.options.precision), found


@pytest.mark.parametrize("name", formats.FORMATS)
def test_an_export_has_the_checkpoints_logits_and_says_how_to_load_it(subject, name, tmp_path):
    made = subject(name)
    difference, found = exported(tmp_path, made, name)
    assert difference.largest < 1e-5
    ways = {"savedmodel": 4, "tflite": 2, "onnx": 2}
    assert len(found) == ways.get(name, 1)
    usage = formats.find(name).usage(made)
    assert "```" in usage
    for file in re.findall(r"`([\w/]+\.(?:pb|tflite|onnx|h5|npz|json|cfg|sh))`", usage):
        assert (tmp_path / file).exists(), file


@pytest.mark.parametrize("name", ["savedmodel", "om", "h5", "npz"])
def test_other_preprocessing_and_stem_come_along(name, tmp_path):
    other = {**NETWORK, "preprocessing": "caffe_scaled", "stem": "original"}
    run = write_run(tmp_path / "run", **other)
    folder = tmp_path / "export"
    folder.mkdir()
    made = made_of(run, formats.FORMATS[name].graph, other)
    assert exported(folder, made, name)[0].largest < 1e-5


# TensorFlow Lite


def test_float16_halves_the_weights_and_stays_near(subject, tmp_path):
    made = subject("tflite", precision="float16")
    difference, _ = exported(tmp_path, made, "tflite")
    assert 1e-6 < difference.largest < 1e-2
    assert os.path.getsize(str(tmp_path / "model.tflite")) < 3 * made.model.count_params()


# SavedModel


def test_class_names_are_an_asset_and_both_signatures_share_one_network(subject, tmp_path):
    made = subject("savedmodel")
    formats.find("savedmodel").write(str(tmp_path), made)
    assert (tmp_path / "assets" / "classes.txt").read_text("utf-8").splitlines() == list(NAMES)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path))
    assert list(loader_impl.get_asset_tensors(str(tmp_path), loaded)) == ["classes_file:0"]
    assert set(loaded.signature_def) == {"serving_default", "jpeg"}
    for signature in loaded.signature_def.values():
        assert set(signature.outputs) == {"logits", "probabilities"}
    assert os.path.getsize(str(tmp_path / "saved_model.pb")) < 1.5 * made.graph_def.ByteSize()


# Keras


def test_the_h5_file_opens_without_this_project(subject, tmp_path):
    formats.find("h5").write(str(tmp_path), subject("h5"))
    with tf.Graph().as_default():
        model = tf.keras.models.load_model(str(tmp_path / "model.h5"))
    kinds = {type(layer).__module__.partition(".keras.")[0] for layer in model.layers}
    assert kinds == {"tensorflow.python"}
    assert model.output.op.type == "Softmax"
    names = [layer.name for layer in model.layers]
    assert {"conv1/conv", "conv2_block2_concat", "pool3_pool", "fc1000"} <= set(names)


# NumPy


def test_the_arrays_have_the_variables_names(subject, tmp_path):
    made = subject("npz")
    formats.find("npz").write(str(tmp_path), made)
    with np.load(str(tmp_path / "model.npz")) as arrays:
        assert set(arrays) == {variable.op.name for variable in made.model.weights}
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    settings = json.loads((tmp_path / "network.json").read_text())
    assert ModelConfig(**settings) == made.network


# OM

# Options of ATC, by Huawei's ATC guide for CANN commercial 5.0.4 (hiascend.com, atlasatc_16_0040).
ATC_OPTIONS = {
    "model", "framework", "output", "input_format", "input_shape", "out_nodes", "output_type",
    "insert_op_conf", "soc_version",
}  # fmt: skip


def test_the_command_is_one_that_atc_documents(subject):
    made = subject("om", soc_version="Ascend910A", batch_size=8)
    words = shlex.split(" ".join(om.atc(made)))
    assert words[0] == "atc"
    given = dict(word[2:].split("=", 1) for word in words[1:])
    assert set(given) == ATC_OPTIONS
    assert given["framework"] == "3"
    assert given["input_shape"] == "pixels:8,48,48,3"
    assert given["out_nodes"] == "logits:0"
    assert given["soc_version"] == "Ascend910A"
    nodes = {node.name: node for node in made.graph_def.node}
    assert nodes["pixels"].op == "Placeholder"
    assert "logits" in nodes
    assert not {"ReadVariableOp", "VarHandleOp"} & {node.op for node in nodes.values()}, "frozen"


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_aipp_is_within_its_documented_ranges(name):
    text = om.aipp(name, 224)
    assert text.startswith("aipp_op {\n")
    settings = dict(re.findall(r"(\w+): (\S+)", text))
    assert settings["input_format"] == "RGB888_U8"
    assert (settings["src_image_size_w"], settings["src_image_size_h"]) == ("224", "224")
    for channel in range(3):
        assert settings[f"mean_chn_{channel}"] == "0"
        assert 0 <= float(settings[f"min_chn_{channel}"]) <= 255
        assert np.isfinite(np.float16(settings[f"var_reci_chn_{channel}"]))
