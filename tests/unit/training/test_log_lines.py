"""What is kept from one log line to the next changes none of them."""

import glob
import math
import time

import tensorflow as tf

from densenet_keras.schedule import Progress, StepLogs
from densenet_keras.training.callbacks import Console, TensorBoard, clock


def logs(step, **scalars):
    return StepLogs({"images_per_second": 8.0, **scalars}, Progress(step, step / 10, 1, 1, 0.5, 0.0))


def events_in(folder):
    """Scalars by tag, step by step."""
    (path,) = glob.glob(str(folder / "events.*"))
    events = tf.compat.v1.train.summary_iterator(path)
    return {e.step: {v.tag: v.simple_value for v in e.summary.value} for e in events if e.summary.value}


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
