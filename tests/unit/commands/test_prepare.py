"""`python -m densenet_keras prepare` as a user meets it: output, exit codes, a real kill, a full disk."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from densenet_keras.commands import main
from densenet_keras.data.prepare import workspace
from tests.support import pictures
from tests.support.commands import environment
from tests.support.paths import ROOT
from tests.support.signals import let_ctrl_c_through

COMMAND = [sys.executable, "-m", "densenet_keras", "prepare"]


def start(*arguments, **more):
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], cwd=ROOT, env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True, **more,
    )  # fmt: skip


def run(*arguments, code=0, **more):
    """(stdout, stderr) of the command, which must end with `code`."""
    process = start(*arguments, **more)
    out, error = process.communicate(timeout=120)
    assert process.returncode == code, out + error
    return out, error


def contents(folder):
    return {name: (folder / name).read_bytes() for name in os.listdir(str(folder)) if name[0] != "."}


def test_a_folder_of_pictures_becomes_a_data_set(tmp_path):
    pictures.class_folders(tmp_path / "pictures")
    out, error = run(tmp_path / "pictures", "--data_dir", tmp_path / "data")
    assert "3 classes (cat, dog, owl), 24 pictures" in out
    assert f"{tmp_path}/data: 2" in out
    assert error == ""
    out, _ = run(tmp_path / "pictures", "--data_dir", tmp_path / "data")
    assert "nothing to do" in out


def test_a_process_killed_in_the_middle_is_gone_on_with(tmp_path):
    for number in range(600):
        pictures.write(tmp_path / "p" / "ab"[number % 2] / f"{number}.jpg", pictures.jpeg(number, (90, 120)))
    flags = ("--train_shards", "60", "--data_threads", "2")
    run(tmp_path / "p", "--data_dir", tmp_path / "whole", *flags)
    process = start(tmp_path / "p", "--data_dir", tmp_path / "data", *flags)
    accounts = tmp_path / "data" / ".preparing" / "train-00005-of-00060.account.npz"
    deadline = time.monotonic() + 60
    while not accounts.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "data" / "dataset.json").exists()
    out, _ = run(tmp_path / "p", "--data_dir", tmp_path / "data", *flags)
    assert "it goes on behind them" in out
    assert contents(tmp_path / "data") == contents(tmp_path / "whole")


def test_ctrl_c_is_no_accident(tmp_path):
    for number in range(900):
        pictures.write(tmp_path / "p" / "ab"[number % 2] / f"{number}.jpg", pictures.jpeg(number, (90, 120)))
    flags = ("--data_dir", tmp_path / "data", "--train_shards", "180")
    process = start(tmp_path / "p", *flags, preexec_fn=let_ctrl_c_through)
    accounts = tmp_path / "data" / ".preparing" / "train-00002-of-00180.account.npz"
    deadline = time.monotonic() + 60
    while not accounts.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert "same command again goes on" in error


def test_a_disk_that_takes_no_more_is_an_error_without_a_traceback(tmp_path):
    """The limit on the size of a file stands for the disk."""
    pictures.class_folders(tmp_path / "p", count=40)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    _, error = run(tmp_path / "p", "--data_dir", tmp_path / "data", code=1, preexec_fn=limit)
    assert error.startswith("error: --data_dir")
    assert "File too large" in error
    assert "make room" in error


def test_a_place_that_is_read_only_is_not_said_to_be_full(tmp_path, monkeypatch, capsys):
    pictures.class_folders(tmp_path / "p")

    def refuse(self):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(workspace.Workspace, "locked", refuse)
    assert main.run_command(["prepare", str(tmp_path / "p"), "--data_dir", str(tmp_path / "data")]) == 1
    error = capsys.readouterr().err
    assert "cannot be written: Read-only file system; choose a folder that you may write to" in error
    assert "make room" not in error


def test_too_many_pictures_left_out_is_exit_code_1(tmp_path):
    pictures.class_folders(tmp_path / "p")
    pictures.write(tmp_path / "p" / "cat" / "notes.txt", b"hello")
    _, error = run(tmp_path / "p", "--data_dir", tmp_path / "data", code=1)
    assert "1 of 25 pictures (4.0%) cannot be used" in error
    assert "cat/notes.txt: not a picture" in error


@pytest.mark.parametrize(("arguments", "words"), [
    ([], "PICTURES is missing"),
    (["pictures"], "--data_dir '': must be given"),
    (["pictures", "--data_dir", "d", "--quality", "0"], "--quality 0: must be at least 1"),
    (["pictures", "--data_dir", "d", "--validation_share", "1"], "--validation_share 1.0: must be"),
    (["pictures", "--data_dir", "d", "--shards", "3"], "did you mean"),
    (["pictures", "--data_dir", "d"], "pictures does not exist"),
])  # fmt: skip
def test_a_command_that_cannot_work_is_refused(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main.run_command(["prepare", *arguments]) == 2
    assert words in capsys.readouterr().err
