"""Bars on pseudo-terminals, read as a person would, through a terminal emulator."""

import fcntl
import io
import os
import pty
import struct
import termios

import pyte
import pytest

from densenet_keras import terminal
from densenet_keras.terminal import Bar
from densenet_keras.training.callbacks import ProgressBar, Throughput
from tests.support import toy_training as toy
from tests.support.toy_training import ToyBackend

LOG_LINE = "a log line"


class Window:
    """A terminal window: `stream` writes to it, `shown` is what stands in it."""

    def __init__(self, columns):
        self._leader, follower = pty.openpty()
        os.set_blocking(self._leader, False)
        self.stream = os.fdopen(follower, "w")
        self.device = os.ttyname(follower)
        self._screen = pyte.Screen(columns, 40)
        self._emulator = pyte.ByteStream(self._screen)
        self.resize(columns)

    def resize(self, columns):
        self.read()
        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self._screen.resize(40, columns)

    def read(self):
        self.stream.flush()
        while True:
            try:
                self._emulator.feed(os.read(self._leader, 1 << 16))
            except BlockingIOError:
                return

    def shown(self):
        self.read()
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def close(self):
        self.stream.close()
        os.close(self._leader)


@pytest.fixture(params=[60, 80, 150])
def window(request):
    window = Window(request.param)
    yield window
    window.close()


def step(bar, times=5):
    for _ in range(times):
        bar.set_postfix_str("loss 6.789, 1234.5 images/s", refresh=False)
        bar.update()
        bar.refresh()


def test_log_lines_and_one_bar_stand_there_also_after_a_resize(window):
    with Bar(total=100, desc="training", file=window.stream, mininterval=0) as bar:
        for columns in (None, 60, 150, 80):
            if columns:
                window.resize(columns)
            step(bar)
            Bar.write(LOG_LINE, file=window.stream)
            step(bar)
        *above, last = window.shown()
    assert above == [LOG_LINE] * 4
    assert last.startswith("training:  40%")
    assert len(last) == 79


def test_a_rank_behind_a_pipe_takes_the_width_of_the_launchers_terminal(window):
    reader, writer = os.pipe()
    environ = {terminal.DEVICE: window.device, "COLUMNS": "7"}
    with os.fdopen(reader), os.fdopen(writer, "w") as pipe:
        for columns in (150, 60):
            window.resize(columns)
            assert terminal.columns(pipe, environ) == columns
        assert terminal.columns(pipe, {terminal.DEVICE: "/dev/gone", "COLUMNS": "7"}) == 7
        assert terminal.columns(pipe, {"COLUMNS": "many"}) == terminal.columns(io.StringIO(), {}) is None


def test_it_says_compiling_only_while_that_is_so(window):
    """And draws at the end of the first chunk, however soon that is."""
    seen = {}

    def look(number):
        bar = window.shown()[-1]
        seen[number] = bar
        return {}

    plan = toy.plan(3, log_interval_steps=1)
    bar = ProgressBar(plan, 0, interactive=True, stream=window.stream)
    assert window.shown()[-1].startswith("preparing:")
    toy.run(plan, [Throughput(plan), bar], backend=ToyBackend(on_step=look))
    first, second, third = (seen[number] for number in sorted(seen))
    assert first.startswith("first step: compiling:")
    assert second.startswith("training:")
    assert "1/3" in second
    assert third.startswith("training:")
    assert len(window.shown()) == 1


def test_the_time_left_follows_from_the_steps_that_were_timed():
    bar = Bar(total=100, file=io.StringIO())
    bar.measured_rate = 0.0
    assert "<?" in str(bar)
    bar.measured_rate = 0.5
    bar.update(10)
    assert "<03:00" in str(bar)
    bar.close()
