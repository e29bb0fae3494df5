"""Logs on a disk that is full: lines are lost, the run is not, and it is said once."""

import contextlib
import io
import os
import resource
import signal

import pytest

from densenet_keras import files


@contextlib.contextmanager
def small_disk():
    """No file of this process grows beyond 20 bytes: only around the lines under test, as pytest's own
    output may be a file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_lines_are_in_the_file_at_once_and_appended_to_what_was_there(tmp_path):
    path = tmp_path / "log"
    path.write_text("old\n")
    log = files.GrowingFile(str(path))
    log.append("é\n")
    assert path.read_text(encoding="utf-8") == "old\né\n"
    log.close()


def test_a_full_disk_costs_whole_lines_and_is_said_once(tmp_path):
    path = tmp_path / "log"
    log = files.GrowingFile(str(path))
    with small_disk(), contextlib.redirect_stderr(io.StringIO()) as said:
        for line in ("0123456789\n", "0123456789 too long\n", "never fits either, this one\n", "short\n"):
            log.append(line)
    log.close()
    assert path.read_text() == "0123456789\nshort\n"
    assert said.getvalue().count("warning") == 1
    assert str(path) in said.getvalue()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_device_that_refuses_every_byte_does_not_raise(capsys):
    log = files.GrowingFile("/dev/full")
    log.append("a\n")
    log.append("b\n")
    log.close()
    assert capsys.readouterr().err.count("No space left") == 1


def test_a_file_that_cannot_be_made_is_said_once_and_made_when_it_can(tmp_path, capsys):
    path = tmp_path / "folder" / "log"
    (tmp_path / "folder").write_text("in the way")
    log = files.GrowingFile(str(path))
    log.append("lost\n")
    (tmp_path / "folder").unlink()
    log.append("kept\n")
    log.close()
    assert path.read_text() == "kept\n"
    assert capsys.readouterr().err.count("warning") == 1
