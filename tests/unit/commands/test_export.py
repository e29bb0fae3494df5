"""The command: what it refuses, what it leaves, and that nothing wrong is ever left."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.commands import export
from densenet_keras.commands.main import run_command
from densenet_keras.exports import formats, job, pb
from densenet_keras.exports.base import Format
from densenet_keras.settings.config import Config
from tests.support.networks import write_run
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("run"), num_classes=3)
    with open(os.path.join(folder, "labels.txt"), "w", encoding="utf-8") as file:
        file.write("1:oak\n2:pine\n3:larch\n")
    return folder


def call(*arguments):
    return run_command(["export", *map(str, arguments)])


@pytest.mark.parametrize("name", ["savedmodel", "pb"])
def test_an_export_is_read_back_in_a_process_of_its_own(run, name, tmp_path):
    """As a user calls it, from another folder."""
    command = [sys.executable, "-m", "densenet_keras", "export", "--restore", run, "--format", name]
    environ = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run(
        [*command, "--output", "out folder [1]"],
        cwd=str(tmp_path),
        env=environ,
        check=True,
        stdout=subprocess.PIPE,
    )
    said = done.stdout.decode()
    assert "3 classes, 32 pixels" in said
    assert "nodes before" in said
    assert "class names from" in said
    assert "compared with the checkpoint on 4 pictures: the largest difference is" in said
    assert os.listdir(str(tmp_path)) == ["out folder [1]"]
    readme = (tmp_path / "out folder [1]" / "README.md").read_text("utf-8")
    assert f"--restore {run} --format {name} --output 'out folder [1]'" in readme
    assert "step 7" in readme.lower()
    classes = {"savedmodel": "assets/classes.txt", "pb": "classes.txt"}[name]
    assert (tmp_path / "out folder [1]" / classes).read_text() == "oak\npine\nlarch\n"
    assert f"`{classes}`" in readme


def test_an_export_with_other_logits_is_not_left(run, tmp_path, monkeypatch, capsys):
    def write_wrong(folder, subject):
        for node in subject.graph_def.node:
            if node.name == "folded/linear/BiasAdd/ReadVariableOp":
                values = np.frombuffer(node.attr["value"].tensor.tensor_content, np.float32) + 0.01
                node.attr["value"].tensor.tensor_content = values.astype(np.float32).tobytes()
        pb.write(folder, subject)

    monkeypatch.setattr(formats, "find", lambda name: Format(write_wrong, pb.read, pb.usage))
    assert call("--restore", run, "--format", "pb", "--output", tmp_path / "out") == 1
    assert "differ from the checkpoint's by" in capsys.readouterr().err
    assert os.listdir(str(tmp_path)) == []


def test_an_export_that_cannot_be_read_is_not_left(run, tmp_path, monkeypatch, capsys):
    def write_half(folder, subject):
        pb.write(folder, subject)
        os.truncate(os.path.join(folder, pb.FILE), 1000)

    monkeypatch.setattr(formats, "find", lambda name: Format(write_half, pb.read, pb.usage))
    assert call("--restore", run, "--format", "pb", "--output", tmp_path / "out") == 1
    assert "cannot be read back" in capsys.readouterr().err
    assert os.listdir(str(tmp_path)) == []


def refused(capsys, *arguments):
    assert call(*arguments) == 2
    return capsys.readouterr().err


def test_what_is_missing_is_said(run, capsys, tmp_path):
    assert "--restore is missing" in refused(capsys, "--output", tmp_path / "out")
    assert "--output is missing" in refused(capsys, "--restore", run)
    said = refused(capsys, "--restore", run, "--output", tmp_path / "out", "--format", "om")
    assert "--soc_version is missing" in said
    assert "npu-smi info" in said


def test_nothing_is_written_over(run, capsys, tmp_path):
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path, tmp_path / "file"):
        assert "exists already" in refused(capsys, "--restore", run, "--output", output)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "pb", "--precision", "float16"], "has effect only with --format tflite"),
        (["--format", "pb", "--soc_version", "Ascend310"], "has effect only with --format om"),
        (["--format", "onnx", "--opset", "9"], "must be at least 11"),
        (["--format", "om", "--soc_version", "310P3"], "must be Ascend and the chip's name"),
        (["--format", "h5", "--fold_bn", "false"], "holds what was trained"),
        (["--format", "tf"], "must be one of savedmodel, pb"),
    ],
)
def test_settings_without_effect_or_sense_are_refused(run, capsys, tmp_path, arguments, message):
    assert message in refused(capsys, "--restore", run, "--output", tmp_path / "out", *arguments)
    assert os.listdir(str(tmp_path)) == []


def test_missing_packages_are_named(run, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "missing_packages", lambda name: ["tf2onnx", "onnxruntime"])
    said = refused(capsys, "--restore", run, "--output", tmp_path / "out", "--format", "onnx")
    assert "pip install tf2onnx onnxruntime" in said


def test_a_folder_without_checkpoints_is_named(capsys, tmp_path):
    assert "holds no checkpoint" in refused(capsys, "--restore", tmp_path, "--output", tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_named(run, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert call("--restore", run, "--output", tmp_path / "file" / "out") == 1
    assert "could not be written" in capsys.readouterr().err


def test_a_disk_that_is_full_is_an_error_without_a_traceback(run, capsys, tmp_path, monkeypatch):
    def write(folder, subject):
        raise tf.errors.ResourceExhaustedError(None, None, f"{folder}/x; No space left on device")

    monkeypatch.setattr(formats, "find", lambda name: Format(write, pb.read, pb.usage))
    assert call("--restore", run, "--output", tmp_path / "out") == 1
    assert "out could not be written: " in capsys.readouterr().err
    assert os.listdir(str(tmp_path)) == []


def test_class_names_are_those_of_the_run_or_of_its_data_or_none(run, capsys, tmp_path):
    config = Config().replace(num_classes=3, data_dir=run)
    wanted = ("oak", "pine", "larch")
    assert job.class_names(os.path.join(run, "model.ckpt-7"), config.replace(data_dir="none")) == wanted
    elsewhere = str(tmp_path / "model.ckpt-7")
    assert job.class_names(elsewhere, config) == wanted
    assert job.class_names(elsewhere, config.replace(num_classes=4)) is None
    assert "names 3 of the network's 4 classes" in capsys.readouterr().out
    assert job.class_names(elsewhere, config.replace(data_dir="none")) is None


def test_the_settings_say_their_own_command():
    settings = export.Settings("a run", "om", "out", fold_bn=False, soc_version="Ascend310")
    words = export.command_of(settings)
    assert words == (
        "python -m densenet_keras export --restore 'a run' --format om --output out --fold_bn false "
        "--soc_version Ascend310"
    )
