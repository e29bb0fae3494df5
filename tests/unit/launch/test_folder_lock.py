"""One run at a time in a run folder."""

import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest

from densenet_keras.errors import UsageError
from densenet_keras.launch import folder_lock
from tests.support.paths import ROOT

HOLD = (
    "import sys; from densenet_keras.launch import folder_lock\n"
    "with folder_lock.held(sys.argv[1]):\n"
    "    print('held', flush=True); sys.stdin.readline()\n"
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(folder_lock, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(folder_lock, "BEAT_SECONDS", 0.05)


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], env={**os.environ, "PYTHONPATH": ROOT},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def hold(folder):
    with folder_lock.held(str(folder)):
        pass


def no_locks(monkeypatch):
    """A file system that knows none, as some network mounts."""

    def refuse(descriptor, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.parametrize("with_locks", [True, False])
def test_a_second_run_is_refused_by_host_and_process_until_the_first_has_died(
    tmp_path, holder, monkeypatch, with_locks
):
    if not with_locks:
        no_locks(monkeypatch)
    with pytest.raises(UsageError, match=f"process {holder.pid} on .*choose another --log_dir"):
        hold(tmp_path)
    holder.kill()
    holder.wait()
    hold(tmp_path)


def test_the_folder_is_free_after_the_run(tmp_path):
    for _ in range(2):
        hold(tmp_path)
    assert not (tmp_path / folder_lock.NAME).read_text()


@pytest.mark.parametrize("beats", [True, False])
def test_a_holder_on_another_host_counts_as_long_as_it_writes(tmp_path, monkeypatch, beats):
    no_locks(monkeypatch)
    path = tmp_path / folder_lock.NAME
    other = {"host": "other", "boot": "another boot", "pid": 1, "began": "1", "beat": "0"}
    path.write_text(json.dumps(other))
    if beats:
        monkeypatch.setattr(
            folder_lock.time, "sleep", lambda seconds: path.write_text(json.dumps({**other, "beat": "1"}))
        )
        with pytest.raises(UsageError, match="process 1 on other"), folder_lock.held(str(tmp_path)):
            pass
    else:
        hold(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"host": "x"}', "\x00" * 50])
def test_a_damaged_lock_file_holds_nothing(tmp_path, text):
    (tmp_path / folder_lock.NAME).write_text(text)
    hold(tmp_path)


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def pwrite(descriptor, data, offset):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(UsageError, match="--log_dir .* cannot be written .No space left on device."):
        hold(tmp_path)
