"""`densenet_keras.train` and `evaluate` in somebody's Python refuse what the commands refuse."""

import os

import pytest
import tensorflow as tf

import densenet_keras
from densenet_keras.errors import UsageError
from densenet_keras.launch import folder_lock
from tests.support import records


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder_lock, "PATIENCE_SECONDS", 0.0)
    return str(records.write_noise(tmp_path / "data", train=8, validation=4, size=(6, 5)))


def parse(data_dir, *more, command="train"):
    flags = ["--model", "densenet_tiny", "--data_dir", data_dir, "--log_dir", "run"]
    return densenet_keras.parse(command, [*flags, "--mode", "train", "--max_train_steps", "1", *more])


def refused(config):
    with pytest.raises(UsageError) as caught:
        densenet_keras.train(config)
    assert not os.path.exists("run/run.json")
    return str(caught.value)


def test_labels_outside_the_classes_are_not_trained_on(data_dir):
    assert "outside 1 to 2, the range of --num_classes 2" in refused(parse(data_dir, "--num_classes", "2"))


def test_one_process_is_not_taken_for_two_ranks(data_dir):
    message = refused(parse(data_dir, "--rank_size", "2"))
    assert message.startswith("--rank_size 2: a call in Python is one rank; ")
    assert "--callbacks" in message


def test_a_dry_run_is_not_taken_for_a_run(data_dir):
    assert refused(parse(data_dir, "--dry_run")).startswith("--dry_run true: ")


def test_settings_of_another_command_are_refused(data_dir, tmp_path):
    evaluation = densenet_keras.parse("evaluate", ["--eval_dir", "run", "--data_dir", data_dir])
    assert refused(evaluation) == "densenet_keras.train cannot evaluate; use densenet_keras.evaluate"
    with pytest.raises(UsageError, match=r"evaluate cannot train; .*parse\("):
        densenet_keras.evaluate(parse(data_dir))
    with pytest.raises(UsageError, match="command 'tran': must be one of train, evaluate, finetune"):
        densenet_keras.parse("tran", [])


def test_a_folder_that_a_command_trains_into_is_refused(data_dir):
    with folder_lock.held("run"):
        assert "is at work in it" in refused(parse(data_dir))


def test_callbacks_that_the_settings_name_run_beside_those_given(data_dir, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "named_callbacks.py").write_text(
        "from tensorflow.keras.callbacks import LambdaCallback\n"
        "def create():\n"
        "    return [LambdaCallback(on_train_end=lambda logs: open('named', 'w').close())]\n"
    )
    given = tf.keras.callbacks.LambdaCallback(on_train_end=lambda logs: open("given", "w").close())
    config = parse(data_dir, "--batch_size", "4", "--callbacks", "named_callbacks:create")
    assert densenet_keras.train(config, [given]) == 1
    assert os.path.exists("named")
    assert os.path.exists("given")
