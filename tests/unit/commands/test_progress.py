"""How far a command is: a bar on a terminal, a line now and then elsewhere."""

import io

import pytest

from densenet_keras.commands import progress as progress_module
from densenet_keras.commands.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def test_off_a_terminal_a_line_comes_each_half_minute(clock):
    stream = io.StringIO()
    progress = Progress("pictures", stream=stream)
    for seconds, done in ((0, 0), (10, 1000), (31, 3100), (40, 4000), (62, 6200)):
        clock[0] = float(seconds)
        progress(done, 10_000)
    progress.close()
    assert stream.getvalue().splitlines() == [
        "3,100 of 10,000 pictures (31%), 100 a second, 01:09 left",
        "6,200 of 10,000 pictures (62%), 100 a second, 00:38 left",
    ]


def test_what_was_there_already_does_not_count_as_speed(clock):
    stream = io.StringIO()
    progress = Progress("MB", scale=1e6, stream=stream)
    progress(int(500e6), int(1000e6))
    clock[0] = 50.0
    progress(int(600e6), int(1000e6))
    assert stream.getvalue() == "600 of 1,000 MB (60%), 2 a second, 03:20 left\n"


def test_on_a_terminal_there_is_a_bar():
    stream = Terminal()
    progress = Progress("pictures", stream=stream)
    for done in (0, 500, 1000):
        progress(done, 1000)
    progress.close()
    assert "1.00k/1.00k" in stream.getvalue()
    assert "pictures/s" in stream.getvalue()
