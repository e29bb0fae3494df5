"""What is kept from one log line to the next changes none of them."""

import glob
import io
import math
import sys
import time

import pytest
import tensorflow as tf
from tqdm import tqdm

from densenet_keras.schedule import Progress, StepLogs
from densenet_keras.training.callbacks import Console, TensorBoard, clock


def logs(step, **scalars):
    return StepLogs({"images_per_second": 8.0, **scalars}, Progress(step, step / 10, 1, 1, 0.5, 0.0))


def events_in(folder):
    """Scalars by tag, step by step."""
    (path,) = glob.glob(str(folder / "events.*"))
    events = tf.compat.v1.train.summary_iterator(path)
    return {e.step: {v.tag: v.simple_value for v in e.summary.value} for e in events if e.summary.value}


@pytest.fixture
def now(monkeypatch):
    """A clock of the test's own, in a list of one."""
    seconds = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    return seconds


def test_events_a_second_apart_are_written_at_once_and_others_together(now, tmp_path):
    board, written = TensorBoard(str(tmp_path), first_step=0), []
    for step, pause in enumerate([0.0, 0.25, 0.25, 0.5, 0.25, 0.75, 1.0, 5.0, 0.5]):
        now[0] += pause
        board.on_train_batch_end(0, logs(step, loss=1.0))
        written.append(len(events_in(tmp_path)))
    board.close()
    assert written == [1, 1, 1, 4, 4, 6, 7, 8, 8]
    assert list(events_in(tmp_path)) == list(range(9))


@pytest.mark.parametrize(
    "end",
    [
        lambda board: board.on_epoch_end(0, logs(3)),
        lambda board: board.on_rewind(1, "words"),
        lambda board: board.flush(),
        lambda board: board.close(),
    ],
)
def test_no_event_is_held_beyond_what_it_belongs_to(end, now, tmp_path):
    board = TensorBoard(str(tmp_path), first_step=0)
    for step in (1, 2, 3):
        board.on_train_batch_end(0, logs(step, loss=float(step)))
    assert sorted(events_in(tmp_path)) == [1]
    end(board)
    assert {step: found["loss"] for step, found in events_in(tmp_path).items()} == {1: 1.0, 2: 2.0, 3: 3.0}
    board.close()


def test_an_event_has_the_time_of_its_line_and_not_of_its_writing(now, tmp_path, monkeypatch):
    board = TensorBoard(str(tmp_path), first_step=0)
    for step in (1, 2, 3):
        monkeypatch.setattr(time, "time", lambda step=step: 5000.5 + step)
        board.on_train_batch_end(0, logs(step, loss=1.0))
    board.close()
    (path,) = glob.glob(str(tmp_path / "events.*"))
    times = [e.wall_time for e in tf.compat.v1.train.summary_iterator(path) if e.summary.value]
    assert times == [5001.5, 5002.5, 5003.5]


def test_an_event_holds_the_scalars_of_its_own_step(tmp_path):
    board = TensorBoard(str(tmp_path), first_step=0)
    lines = [
        {"loss": 2.0, "norm": 1.0},
        {"loss": 1.0, "norm": 0.5},
        {"loss": math.nan, "norm": 0.25},
        {"norm": 4.0, "loss": 3.0},
        {"loss": 0.0},
        {"loss": 5.0, "norm": 6.0, "skipped_steps": 1.0},
    ]
    for step, scalars in enumerate(lines, 1):
        board.on_train_batch_end(0, logs(step, **scalars))
    board.close()
    always = {"train/images_per_second": 8.0}
    found = events_in(tmp_path)
    assert sorted(found) == [1, 2, 3, 4, 5, 6]
    for step, scalars in enumerate(lines, 1):
        tags = {name if name == "loss" else f"train/{name}": value for name, value in scalars.items()}
        shown = {tag: value for tag, value in {**always, **tags}.items() if not math.isnan(value)}
        epoch = found[step].pop("train/epoch")
        assert math.isclose(epoch, step / 10, rel_tol=1e-6)
        assert found[step] == shown


def test_the_time_of_a_line_is_that_of_its_second(monkeypatch):
    form = "%Y-%m-%dT%H:%M:%S%z"
    for now in (1592676366.0, 1592676366.9, 1592676367.0, 1592676366.5, 1592679999.2):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert clock.local_time(form) == time.strftime(form, time.localtime(now))
        assert clock.local_time("%H:%M:%S") == time.strftime("%H:%M:%S", time.localtime(now))


def test_a_line_of_the_console_is_written_in_one_piece(tmp_path, monkeypatch):
    """Two pieces of a line may come apart where ranks, or a bar, write between them."""
    written = []

    class Terminal:
        def write(self, text):
            written.append(text)

    console = Console(str(tmp_path), "train.log")
    monkeypatch.setattr("sys.stdout", Terminal())
    console.write("words of a line")
    console.close()
    assert [text for text in written if text] == ["words of a line\n"]
    assert (tmp_path / "train.log").read_text() == "words of a line\n"


def test_a_line_of_the_console_stands_above_a_bar(tmp_path, monkeypatch, capsys):
    console, screen = Console(str(tmp_path), "train.log"), io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    with tqdm(total=3, file=screen) as bar:
        bar.update()
        console.write("words of a line")
    console.close()
    before, after = screen.getvalue().split("words of a line\n")
    assert before.endswith("\r"), "the bar is taken away before the line"
    assert "1/3" in after, "and drawn again below it"


def test_the_console_looks_for_news_once_a_second_and_at_the_end(now, tmp_path, capsys):
    looks = []

    def news():
        looks.append(now[0])
        return [f"news {len(looks)}"]

    console = Console(str(tmp_path), "train.log", news)
    console.on_train_begin()
    for _ in range(9):
        now[0] += 0.25
        console.on_train_batch_end(0, StepLogs({}, logs(1).progress))
    console.on_train_end()
    console.close()
    assert looks == [1000.0, 1001.0, 1002.0, 1002.25, 1002.25], "the last for what ends with an error"
    assert capsys.readouterr().out.splitlines() == [f"news {look}" for look in range(1, 6)]
