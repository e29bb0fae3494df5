"""Folders that are written whole or not at all."""

import os

import pytest

from densenet_keras import files


def test_a_folder_has_its_name_when_it_is_whole(tmp_path):
    path = str(tmp_path / "made" / "out")
    with files.whole_folder(path) as folder:
        os.makedirs(os.path.join(folder, "inside"))
        with open(os.path.join(folder, "inside", "file"), "w", encoding="utf-8") as file:
            file.write("text")
        assert not os.path.exists(path)
    assert os.listdir(str(tmp_path / "made")) == ["out"]
    assert os.stat(path).st_mode & 0o777 == 0o755
    assert os.stat(os.path.join(path, "inside", "file")).st_mode & 0o777 == 0o644


def test_what_fails_leaves_no_trace(tmp_path):
    def interrupted():
        with files.whole_folder(str(tmp_path / "out")) as folder:
            os.makedirs(os.path.join(folder, "inside"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(str(tmp_path)) == []


def test_a_folder_that_holds_something_is_not_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(OSError, match="not empty"), files.whole_folder(str(tmp_path / "out")):
        pass
    assert (tmp_path / "out" / "mine").read_text() == "mine"
    assert os.listdir(str(tmp_path)) == ["out"]
