"""From a trained network to one's own classes, and from pictures to answers."""

import json
import os
import shlex
import shutil

import numpy as np
import pytest

import densenet_keras
from densenet_keras.commands import main
from densenet_keras.data import records as data_records
from densenet_keras.data.record_reader import RecordReader
from tests.support import commands, records

SMALL = ("--batch_size", 8, "--image_size", 32)
PLAIN = ("--min_crop_area", 1, "--horizontal_flip", "false")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(data, run folder): a small network after a few steps on noise of ten classes."""
    folder = tmp_path_factory.mktemp("trained")
    data = records.write_noise(folder / "data", train=32, validation=21)
    commands.run(
        "train_keras.py", "--model", "densenet_tiny", "--data_dir", data, "--log_dir", folder / "run", *SMALL,
        "--max_train_steps", 6, "--mode", "train",
    )  # fmt: skip
    return data, folder / "run"


@pytest.fixture(scope="module")
def pictures(trained, tmp_path_factory):
    """(folder of the validation pictures as files, class of each)."""
    split = data_records.open_split(str(trained[0]), "validation")
    folder = tmp_path_factory.mktemp("pictures")
    for number, encoded in enumerate(RecordReader(split).images(np.arange(len(split)))):
        (folder / f"{number:03d}.jpg").write_bytes(encoded)
    return folder, (split.label - 1).tolist()


def predict(*arguments, code=0):
    output = commands.run("-m", "densenet_keras", "predict", *arguments, "--json", "true", code=code)
    return json.loads(output[output.index("[\n") :])


def test_the_share_of_right_answers_is_evaluates_top1_on_any_number_of_ranks(trained, pictures, tmp_path):
    data, run = trained
    folder, labels = pictures
    table = tmp_path / "table.json"
    commands.run(
        "evaluate.py", "--eval_dir", run, "--data_dir", data, "--log_dir", tmp_path / "e", "--json", table,
        "--batch_size", 8,
    )  # fmt: skip
    answers = predict("--restore", run, folder, "--batch_size", 8)
    right = [answer["top"][0]["class"] == label for answer, label in zip(answers, labels)]
    assert 100.0 * sum(right) / len(right) == json.loads(table.read_text())[-1]["top1"]
    assert answers == predict("--restore", run, folder, "--batch_size", 8, "--rank_size", 2)
    assert sum(guess["probability"] for guess in answers[0]["top"]) < 1.0


def test_damaged_pictures_are_named_and_the_others_answered(trained, pictures, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    answers = predict("--restore", trained[1], tmp_path / "bad.jpg", pictures[0] / "000.jpg", code=1)
    assert "not a picture" in answers[0]["error"]
    assert len(answers[1]["top"]) == 5


def test_the_log_that_a_failure_names_is_there_to_be_read(trained, pictures, tmp_path):
    shutil.copytree(str(trained[1]), str(tmp_path / "run"))
    with open(str(tmp_path / "run" / "model.ckpt-6.data-00000-of-00001"), "r+b") as file:
        file.write(b"damage")
    (tmp_path / "tmp").mkdir()
    output = commands.run(
        "-m", "densenet_keras", "predict", "--restore", tmp_path / "run", pictures[0] / "000.jpg", code=1,
        TMPDIR=str(tmp_path / "tmp"),
    )  # fmt: skip
    (line,) = [line for line in output.splitlines() if line.startswith("its log: ")]
    with open(line.partition(": ")[2]) as file:
        assert "is damaged" in file.read()


def test_several_classifiers_answer_in_python_as_the_command_does(trained, pictures):
    run, folder = str(trained[1]), pictures[0]
    path = str(folder / "001.jpg")
    with densenet_keras.Classifier.load(run) as first:
        second = densenet_keras.Classifier.load(run)
        answers = [first.predict([path])[0], second.predict(path)[0]]
        first_again = first.predict([(folder / "001.jpg").read_bytes()])[0]
        of_folder = first.predict(str(folder))
        alone = [
            first.predict(given)[0].top
            for given in (folder / "001.jpg", [folder / "001.jpg"], (folder / "001.jpg").read_bytes())
        ]
        array = np.zeros((9, 8, 3), np.uint8)
        assert first.predict(array) == first.predict([array])
        second.close()
    assert answers[0] == answers[1]
    assert first_again.top == answers[0].top
    assert alone == [answers[0].top] * 3
    assert [os.path.basename(answer.path) for answer in of_folder] == sorted(os.listdir(str(folder)))
    assert of_folder[1].top[0].number == answers[0].top[0].number
    assert predict("--restore", run, path)[0]["top"][0]["class"] == answers[0].top[0].number


@pytest.fixture(scope="module")
def tuned(trained, tmp_path_factory):
    """The run folder of a network fine-tuned to three classes with its first block frozen."""
    folder = tmp_path_factory.mktemp("tuned")
    data = records.write_noise(folder / "three", train=9, validation=6, classes=3)
    output = commands.run(
        "finetune.py", "--restore", trained[1], "--data_dir", data, "--log_dir", folder / "run",
        "--max_epochs", 4, "--freeze", "block1", "--patience_evals", 1, *PLAIN,
    )  # fmt: skip
    return folder / "run", output


def test_classes_and_length_come_from_the_data_and_the_epochs(tuned):
    with open(str(tuned[0] / "run.json")) as file:
        config = json.load(file)
    assert config["model"]["num_classes"] == 3
    assert config["optimizer"]["T_max"] == 4


def test_a_frozen_part_stays_bit_for_bit_and_the_rest_learns(trained, tuned):
    before = commands.variables(trained[1] / "model.ckpt-6")
    newest = max(tuned[0].glob("model.ckpt-*.index"), key=lambda path: int(path.stem.rpartition("-")[2]))
    after = commands.variables(str(newest)[: -len(".index")])
    frozen = [name for name in after if name.startswith(("stem", "block1/")) and "Momentum" not in name]
    learning = [name for name in after if name.startswith(("block2/", "transition1/"))]
    learning = [name for name in learning if "Momentum" not in name]
    assert len(frozen) > 10
    assert all(np.array_equal(before[name], after[name]) for name in frozen)
    assert all(not np.array_equal(before[name], after[name]) for name in learning)
    assert not [name for name in after if name.startswith("block1/") and "Momentum" in name]


def test_the_best_checkpoint_answers_too(tuned, pictures):
    best = tuned[0] / "best"
    assert len(list(best.glob("model.ckpt-*.index"))) == 1
    assert len(predict("--restore", best, pictures[0] / "000.jpg")[0]["top"]) == 3
    assert os.path.exists(str(best / "run.json"))


def test_a_run_that_no_longer_improves_ends_early(tuned):
    assert "--patience_evals" in tuned[1]


def test_the_command_that_continues_is_one_of_this_run(tuned):
    folder, output = tuned
    (line,) = [line for line in output.splitlines() if " -m densenet_keras " in line]
    command, *argv = shlex.split(line.partition(" -m densenet_keras ")[2])
    config = main.parse(command, argv, {})
    assert config.command == "finetune"
    assert config.run.log_dir == str(folder)
    assert config.finetune.freeze == "block1"
