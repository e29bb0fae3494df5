"""The table of checkpoints, where the run that writes them goes on meanwhile."""

import os

import pytest

from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints.saver import Saver
from densenet_keras.commands import main
from densenet_keras.commands.evaluate import evaluate
from densenet_keras.commands.train import train
from densenet_keras.errors import RunError
from tests.support import records as fake


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(data_dir, run folder) with the checkpoints of steps 1, 2 and 3."""
    folder = tmp_path_factory.mktemp("evaluate")
    data_dir = fake.write_noise(folder / "data", train=8, validation=4, size=(8, 8))
    arguments = ["--model", "densenet_tiny", "--batch_size", "8", "--data_dir", data_dir]
    arguments += ["--log_dir", str(folder / "run"), "--mode", "train", "--max_train_steps", "3"]
    train(main.parse("train", [*arguments, "--save_checkpoints_steps", "1", "--iterations_per_loop", "1"]))
    return data_dir, str(folder / "run")


def configured(run, tmp_path):
    data_dir, log_dir = run
    arguments = ["--data_dir", data_dir, "--eval_dir", log_dir, "--log_dir", str(tmp_path / "e")]
    return main.parse("evaluate", [*arguments, "--batch_size", "4", "--json", str(tmp_path / "table.json")])


@pytest.fixture
def reaching(monkeypatch):
    """Calls a function with the path of each checkpoint before it is restored."""
    restore = Saver.restore

    def reach(action):
        monkeypatch.setattr(
            Saver, "restore", lambda self, session, path: action(path) or restore(self, session, path)
        )

    return reach


def hide(path):
    for file in checkpoint_files.files_of(path):
        os.rename(file, file + ".hidden")


def unhide(folder):
    for name in os.listdir(folder):
        if name.endswith(".hidden"):
            os.rename(os.path.join(folder, name), os.path.join(folder, name[: -len(".hidden")]))


def test_checkpoints_deleted_meanwhile_are_passed_over(run, tmp_path, reaching, capsys):
    reaching(lambda path: hide(path) if path.endswith("-2") else None)
    try:
        results = evaluate(configured(run, tmp_path))
    finally:
        unhide(run[1])
    assert [result.step for result in results] == [1, 3]
    printed = capsys.readouterr().out
    assert "passed over" in printed
    assert "model.ckpt-2 does not exist any more" in printed
    assert "damaged" not in printed


def test_a_damaged_checkpoint_is_named_and_the_others_have_their_lines(run, tmp_path, capsys):
    data = os.path.join(run[1], "model.ckpt-2.data-00000-of-00001")
    with open(data, "rb") as file:
        whole = file.read()
    with open(data, "wb") as file:
        file.write(bytes(len(whole)))
    try:
        with pytest.raises(RunError, match="1 of 3 checkpoints .*model.ckpt-2 .*damaged"):
            evaluate(configured(run, tmp_path))
    finally:
        with open(data, "wb") as file:
            file.write(whole)
    assert "passed over" in capsys.readouterr().out
    assert '"step": 3' in (tmp_path / "table.json").read_text()


def test_no_checkpoint_left_is_an_error(run, tmp_path, reaching):
    reaching(hide)
    try:
        with pytest.raises(RunError, match="3 of 3 checkpoints"):
            evaluate(configured(run, tmp_path))
    finally:
        unhide(run[1])
