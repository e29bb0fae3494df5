"""Files that a user names: what may stand in their place, and what becomes of it."""

import json
import os

import pytest

from densenet_keras import files
from densenet_keras.errors import RunError


def test_a_file_may_be_made_or_replaced_and_a_link_to_one_stays_a_link(tmp_path):
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    link.symlink_to("real.json")
    for path in (real, link):
        assert files.can_replace(str(path))
    files.write_report(str(link), [1])
    assert link.is_symlink()
    assert json.loads(real.read_text()) == [1]
    files.write_report(str(real), [2])
    assert json.loads(real.read_text()) == [2]
    assert sorted(os.listdir(str(tmp_path))) == ["link.json", "real.json"]


def test_what_is_not_a_file_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(str(pipe))
    (tmp_path / "to_null").symlink_to("/dev/null")
    for path in (str(tmp_path), str(pipe), str(tmp_path / "to_null"), str(tmp_path / "missing" / "t.json")):
        assert not files.can_replace(path)
    assert not files.can_replace("/dev/null")


def test_a_stream_of_a_process_is_not_replaced_although_a_file_lies_behind_it(tmp_path):
    with open(str(tmp_path / "out.txt"), "w") as file:
        stream = f"/proc/self/fd/{file.fileno()}"
        (tmp_path / "stdout").symlink_to(stream)
        assert os.path.isfile(stream)
        assert not files.can_replace(stream)
        assert not files.can_replace(str(tmp_path / "stdout"))


def test_a_report_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "t.json").mkdir()
    with pytest.raises(RunError, match="--json .*t.json cannot be written: Is a directory"):
        files.write_report(str(tmp_path / "t.json"), [])
