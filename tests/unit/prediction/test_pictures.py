"""Which pictures are meant."""

import errno
import os

import pytest

from densenet_keras.errors import UsageError
from densenet_keras.prediction import pictures


def test_folders_are_searched_in_order_and_hidden_files_left_out(tmp_path):
    for name in ("b.JPG", "a.png", ".hidden.jpg", "notes.txt", "deep/c.jpeg", ".git/d.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    found = pictures.find([str(tmp_path)])
    assert [path[len(str(tmp_path)) + 1 :] for path in found] == ["a.png", "b.JPG", "deep/c.jpeg"]


def test_links_to_folders_are_followed_but_not_in_a_circle(tmp_path):
    for name in ("in/a.jpg", "elsewhere/b.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "in" / "there").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path)
    (tmp_path / "elsewhere" / "itself").symlink_to(".")
    found = pictures.find([str(tmp_path / "in")])
    assert [path[len(str(tmp_path)) + 1 :] for path in found] == ["in/a.jpg", "in/there/b.jpg"]


def test_a_folder_that_cannot_be_read_is_said(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"x")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    (tmp_path / "locked").mkdir()
    monkeypatch.setattr(pictures.os, "scandir", refusing)
    with pytest.raises(UsageError, match="locked cannot be read: Permission denied"):
        pictures.find([str(tmp_path)])


def test_a_file_that_is_named_is_taken_whatever_its_ending(tmp_path):
    (tmp_path / "picture").write_bytes(b"x")
    assert pictures.find([str(tmp_path / "picture")]) == [str(tmp_path / "picture")]


def test_a_list_comes_on_standard_input():
    assert pictures.find(["-"], ["a.jpg\n", "\n", "b c.jpg\r\n"]) == ["a.jpg", "b c.jpg"]


def test_what_does_not_exist_and_what_holds_no_picture_is_said(tmp_path):
    with pytest.raises(UsageError, match="nothing.jpg: no such file"):
        pictures.find([str(tmp_path / "nothing.jpg")])
    with pytest.raises(UsageError, match="no picture in"):
        pictures.find([str(tmp_path)])
