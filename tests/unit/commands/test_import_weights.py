"""A run folder from weights of other programs: what it holds, what is refused, what is said."""

import json
import os

import numpy as np
import pytest

from densenet_keras.checkpoints import run_folder
from densenet_keras.commands import import_weights
from densenet_keras.commands import main as cli
from densenet_keras.commands.preflight import check
from densenet_keras.errors import UsageError
from densenet_keras.network.variables import variables
from densenet_keras.network.variants import VARIANTS
from densenet_keras.network.weights import source as weights
from densenet_keras.network.weights.names import OWN_LAYOUT
from densenet_keras.network.weights.tensors import Tensors
from densenet_keras.settings.arguments import parse_tool
from densenet_keras.settings.config import FINETUNE
from tests.parity.fixtures import recipe
from tests.support import foreign, networks
from tests.support.commands import variables as read_checkpoint
from tests.support.foreign import Fixture


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The command sets this for its own process, which here goes on with other tests."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")


def imported(*arguments):
    given = [str(argument) for argument in arguments]
    settings = parse_tool("import", import_weights.Settings, import_weights.EXAMPLE, given)
    assert import_weights.run(settings) == 0


def refused(*arguments):
    with pytest.raises(UsageError) as caught:
        imported(*arguments)
    return str(caught.value)


def torch_file(folder, change=None):
    arrays = Fixture("torchvision.npz", "densenet_tiny").weights()
    if change is not None:
        change(arrays)
    return foreign.write_safetensors(folder / "tiny.safetensors", arrays)


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def test_a_run_folder_says_what_the_weights_need(tmp_path, run, capsys):
    imported(torch_file(tmp_path), "--log_dir", run, "--preprocessing", "caffe_scaled", "--label_offset", 0)
    config = run_folder.stored_config(str(run))
    model = config.model
    assert (model.model, model.num_classes, model.growth_rate, model.bn_size) == ("densenet_tiny", 10, 8, 4)
    assert (model.bn_epsilon, model.bn_momentum, model.preprocessing) == (1e-5, 0.9, "caffe_scaled")
    assert (model.stem, model.image_size, config.data.label_offset) == ("standard", 32, 0)
    held = read_checkpoint(run / "model.ckpt-0")
    assert held["global_step"] == 0
    kernel = recipe.torch_weight("features.conv0.weight", (16, 3, 7, 7))
    np.testing.assert_array_equal(held["stem_conv/kernel"], kernel.transpose(2, 3, 1, 0))
    said = capsys.readouterr().out
    assert "loaded: 81 of 81 variables" in said
    assert "num_batches_tracked and 13 more (optimizer state or a counter)" in said
    report = json.loads((run / "import.json").read_text())
    assert len(report["loaded"]) == 81
    assert len(report["left_out"]) == 16
    assert report["missing"] == {}
    assert len(report["sha256"]) == 64


def test_evaluate_and_finetune_take_the_folder_like_any_other(tmp_path, run):
    imported(torch_file(tmp_path), "--log_dir", run, "--preprocessing", "tf")
    for command, flag in (("evaluate", "--eval_dir"), (FINETUNE, "--restore")):
        model = cli.parse(command, [flag, str(run)]).model
        assert (model.model, model.bn_epsilon, model.preprocessing) == ("densenet_tiny", 1e-5, "tf")


def test_less_than_the_whole_backbone_is_refused_unless_it_is_allowed(tmp_path, run, capsys):
    def without_a_norm(arrays):
        del arrays["features.denseblock2.denselayer1.norm1.weight"]
        arrays["features.denseblock2.denselayer1.norm3.weight"] = np.ones(3, np.float32)

    path = torch_file(tmp_path, without_a_norm)
    text = refused(path, "--log_dir", run, "--preprocessing", "torch")
    assert "fills 80 of 81 variables; missing: block2/layer1/bn1/gamma (not in the file)" in text
    assert "It also holds features.denseblock2.denselayer1.norm3.weight, not a known name" in text
    assert "--allow_partial" in text
    assert not run.exists()
    imported(path, "--log_dir", run, "--preprocessing", "torch", "--allow_partial")
    assert "missing, so random: block2/layer1/bn1/gamma (not in the file)" in capsys.readouterr().out
    np.testing.assert_array_equal(read_checkpoint(run / "model.ckpt-0")["block2/layer1/bn1/gamma"], 1.0)


def test_a_file_of_nothing_but_a_classifier_is_refused_in_any_case(tmp_path, run):
    path = foreign.write_safetensors(tmp_path / "a", {"classifier.weight": np.ones((10, 32), np.float32)})
    assert "is of a network with () dense layers" in refused(path, "--log_dir", run, "--allow_partial")


def test_another_shape_is_named_with_both(tmp_path, run):
    def wider(arrays):
        arrays["features.norm5.weight"] = np.ones(33, np.float32)

    text = refused(torch_file(tmp_path, wider), "--log_dir", run, "--preprocessing", "torch")
    assert "final_bn/gamma (shape (33,) in the file, (32,) here" in text


def test_another_number_of_classes_makes_a_new_classifier(tmp_path, run):
    imported(torch_file(tmp_path), "--log_dir", run, "--preprocessing", "torch", "--num_classes", 5)
    held = read_checkpoint(run / "model.ckpt-0")
    assert held["linear/kernel"].shape == (32, 5)
    assert np.ptp(held["linear/kernel"]) > 0
    missing = json.loads((run / "import.json").read_text())["missing"]
    assert missing == {
        "linear/kernel": "shape (32, 10) in the file, (32, 5) here",
        "linear/bias": "shape (10,) in the file, (5,) here",
    }


def test_a_file_without_a_classifier_asks_for_the_number_of_classes(tmp_path, run):
    def headless(arrays):
        del arrays["classifier.weight"], arrays["classifier.bias"]

    path = torch_file(tmp_path, headless)
    assert "holds no classifier; give --num_classes N" in refused(path, "--log_dir", run)
    imported(path, "--log_dir", run, "--num_classes", 4)
    assert run_folder.stored_config(str(run)).model.preprocessing == "torch"


def test_preprocessing_is_asked_for_where_the_classes_are_somebody_s_own(tmp_path, run):
    text = refused(torch_file(tmp_path), "--log_dir", run)
    assert "has 10 classes" in text
    assert "give --preprocessing torch" in text


@pytest.mark.parametrize(
    ("num_classes", "offset", "first"), [(1000, 1, "1:tench"), (1001, 0, "0:background")]
)
def test_imagenet_s_1001_labels_have_the_background_in_front(tmp_path, run, num_classes, offset, first):
    def imagenet(arrays):
        arrays["classifier.weight"] = np.ones((num_classes, 32), np.float32)
        arrays["classifier.bias"] = np.ones(num_classes, np.float32)

    imported(torch_file(tmp_path, imagenet), "--log_dir", run)
    config = run_folder.stored_config(str(run))
    assert (config.model.num_classes, config.data.label_offset) == (num_classes, offset)
    assert config.model.preprocessing == "torch"
    named = (run / "labels.txt").read_text().splitlines()
    assert (named[0], named[-1]) == (first, "1000:toilet tissue")


def test_a_network_with_another_stem_is_named_as_that(tmp_path, run):
    def deep(arrays):
        arrays["features.conv0.weight"] = np.ones((8, 3, 3, 3), np.float32)

    text = refused(torch_file(tmp_path, deep), "--log_dir", run, "--preprocessing", "torch")
    assert "the first convolution has the shape (3, 3, 3, 8), that of densenet_tiny (7, 7, 3, 8)" in text


def test_values_that_no_network_can_use_are_refused(tmp_path, run):
    def damage(arrays):
        arrays["features.norm5.bias"][3] = np.nan

    text = refused(torch_file(tmp_path, damage), "--log_dir", run, "--preprocessing", "torch")
    assert "features.norm5.bias holds infinite or undefined values" in text
    assert not run.exists()


def test_a_run_is_not_overwritten(tmp_path, run):
    networks.write_run(run)
    text = refused(torch_file(tmp_path), "--log_dir", run, "--preprocessing", "torch")
    assert f"--log_dir {run}: holds a run already" in text


def test_names_of_classes_go_into_the_run_folder(tmp_path, run):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class {n}" for n in range(10)))
    imported(torch_file(tmp_path), "--log_dir", run, "--preprocessing", "torch", "--labels", names)
    assert (run / "labels.txt").read_text().startswith("1:class 0\n2:class 1\n")
    names.write_text("one\ntwo\n")
    text = refused(
        torch_file(tmp_path), "--log_dir", tmp_path / "other", "--preprocessing", "torch", "--labels", names
    )
    assert "names 2 labels from 1 on; the network has 10 classes" in text


def test_weights_of_our_own_keep_their_settings_under_another_number_of_classes(tmp_path, run):
    source = networks.write_run(tmp_path / "tiny", bn_epsilon=2e-3, preprocessing="tf", num_classes=10)
    (tmp_path / "tiny" / "labels.txt").write_text("".join(f"{n + 1}:class {n}\n" for n in range(10)))
    assert "or leave --model out" in refused(source, "--log_dir", run, "--model", "densenet_cifar")
    imported(source, "--log_dir", run, "--num_classes", 3)
    model = run_folder.stored_config(str(run)).model
    assert (model.bn_epsilon, model.preprocessing, model.num_classes) == (2e-3, "tf", 3)
    ours, theirs = read_checkpoint(run / "model.ckpt-0"), read_checkpoint(tmp_path / "tiny" / "model.ckpt-7")
    np.testing.assert_array_equal(ours["stem_conv/kernel"], theirs["stem_conv/kernel"])
    assert not (run / "labels.txt").exists(), "those are the names of other classes"
    imported(source, "--log_dir", tmp_path / "same")
    assert (tmp_path / "same" / "labels.txt").read_text() == (tmp_path / "tiny" / "labels.txt").read_text()


@pytest.mark.parametrize("beside", ["run.json", "network.json"])
def test_arrays_of_our_own_need_the_settings_beside_them(tmp_path, run, beside):
    """Nothing in them tells the epsilon, and a wrong one changes every logit a little."""
    networks.write_run(tmp_path / "tiny", bn_epsilon=2e-3, num_classes=10)
    arrays = read_checkpoint(tmp_path / "tiny" / "model.ckpt-7")
    folder = tmp_path / "arrays"
    folder.mkdir()
    np.savez(str(folder / "model.npz"), **arrays)
    text = refused(folder / "model.npz", "--log_dir", run)
    assert "its epsilon is not known; give --bn_epsilon (0.001 unless" in text
    stored = json.loads((tmp_path / "tiny" / "run.json").read_text())
    (folder / beside).write_text(json.dumps(stored if beside == "run.json" else stored["model"]))
    imported(folder / "model.npz", "--log_dir", run)
    assert run_folder.stored_config(str(run)).model.bn_epsilon == 2e-3


def test_a_checkpoint_of_another_depth_fills_what_both_have():
    """DenseNet-121's three first blocks, but for what its fewer layers make narrower, in DenseNet-169."""
    held = variables(VARIANTS["densenet121"], 1000)
    tensors = Tensors("TensorFlow checkpoint", {**held, "global_step": ()}, held.__getitem__)
    source = weights.Source("ckpt", tensors, OWN_LAYOUT, OWN_LAYOUT.translate(list(tensors.shapes)))
    found = weights.match(source, variables(VARIANTS["densenet169"], 1000))
    assert {"stem_conv/kernel", "block3/layer24/conv2/kernel", "linear/bias"} <= set(found.loaded)
    assert "block3/layer25/bn1/gamma" in found.missing
    reason = "shape (1, 1, 1024, 512) in the file, (1, 1, 1280, 640) here"
    assert found.missing["transition3/conv/kernel"] == reason
    assert found.left_out["global_step"] == "optimizer state or a counter"


# Fine-tuning from a file


def test_finetune_takes_the_settings_of_a_file(tmp_path):
    path = torch_file(tmp_path)
    config = cli.parse(FINETUNE, ["--restore", path, "--num_classes", "3", "--preprocessing", "caffe"])
    model = config.model
    assert (model.model, model.growth_rate, model.bn_epsilon) == ("densenet_tiny", 8, 1e-5)
    assert (model.num_classes, model.preprocessing) == (3, "caffe")
    assert config.run.restore_path == path


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--model", "densenet121"], "was trained with densenet_tiny, say its arrays; leave --model out"),
        (["--restore_exclude", ""], "missing: linear/kernel, linear/bias (shape (32, 10) in the file"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_before_anything_is_built(tmp_path, arguments, text):
    path = torch_file(tmp_path)
    given = ["--restore", path, "--num_classes", "3", "--preprocessing", "torch", "--synthetic_data"]
    with pytest.raises(UsageError) as caught:
        check(cli.parse(FINETUNE, [*given, *arguments]), {})
    assert text in str(caught.value)


def test_evaluate_says_how_a_file_becomes_a_run(tmp_path):
    with pytest.raises(UsageError) as caught:
        check(cli.parse("evaluate", ["--eval_dir", torch_file(tmp_path), "--synthetic_data"]), {})
    assert "python -m densenet_keras import makes a run folder of it" in str(caught.value)


def test_a_file_in_a_run_folder_is_not_taken_for_the_run(tmp_path):
    folder = networks.write_run(tmp_path / "run", bn_epsilon=0.5)
    path = foreign.write_safetensors(
        os.path.join(folder, "a.safetensors"), Fixture("torchvision.npz", "densenet_tiny").weights()
    )
    model = cli.parse(FINETUNE, ["--restore", path, "--num_classes", "3", "--preprocessing", "torch"]).model
    assert model.bn_epsilon == 1e-5


def test_every_variable_of_the_fixture_has_a_place():
    wanted = variables(VARIANTS["densenet_tiny"], 10)
    fixture = Fixture("torchvision.npz", "densenet_tiny")
    assert len([name for name in fixture.names if not name.endswith("num_batches_tracked")]) == len(wanted)
