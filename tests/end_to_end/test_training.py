"""Training as a user runs it: what a run leaves behind, and that it does not depend on how it was cut."""

import json
import os
import re

import pytest

from densenet_keras.data.records import open_split
from tests.support import commands, records

TINY = ("--model", "densenet_tiny", "--num_classes", 10, "--batch_size", 8, "--intra_op_threads", 1)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return records.write_noise(tmp_path_factory.mktemp("data"), train=52, validation=21)


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    """A run of three epochs, six steps each, evaluated after the second and at the end."""
    log_dir = tmp_path_factory.mktemp("run") / "model"
    output = commands.run(
        "train_keras.py",
        *TINY,
        "--data_dir",
        data_dir,
        "--log_dir",
        log_dir,
        "--max_epochs",
        3,
        "--epochs_between_evals",
        2,
        "--iterations_per_loop",
        4,
        "--save_checkpoints_steps",
        5,
        "--keep_checkpoint_max",
        3,
        "--T_max",
        3,
    )
    return log_dir, output


def test_a_run_leaves_the_files_that_the_readme_lists(finished):
    log_dir, _ = finished
    names = set(os.listdir(str(log_dir)))
    assert {"run.json", "plan.json", "metrics.jsonl", "densenet121.log", "rank_logs", "checkpoint"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    steps = sorted(int(n[len("model.ckpt-") : -len(".index")]) for n in names if n.endswith(".index"))
    assert steps == [12, 15, 18], "the newest three: every five steps, what was evaluated, and the end"


def test_log_lines_have_the_originals_format(finished):
    log_dir, output = finished
    line = re.compile(
        r"^step: +\d+  epoch: +\d+\.\d  FPS: +\S+  loss: *\d+\.\d{3}  total_loss: *\d+\.\d{3}  lr:\d\.\d{5}"
    )
    with open(str(log_dir / "densenet121.log"), encoding="utf-8") as file:
        logged = [text for text in file if text.startswith("step:")]
    assert logged
    assert all(line.match(text) for text in logged), logged
    assert logged[-1].strip() in output


def test_metrics_hold_every_field_at_every_boundary(finished):
    lines, evaluations = commands.metrics(finished[0])
    assert [line["step"] for line in lines] == [4, 5, 6, 10, 12, 15, 18]
    losses = {"loss", "total_loss", "learning_rate"}
    wanted = {"step", "epoch", "images_per_second", "data_wait_fraction"} | losses
    assert all(wanted <= set(line) for line in lines)
    assert [line["epoch"] for line in evaluations] == [2.0, 3.0], "and the last epoch always"
    assert all(line["images"] == 21 for line in evaluations), "every image once, the last batch is partial"


def test_the_learning_rate_follows_the_step_inside_a_loop(finished):
    lines, _ = commands.metrics(finished[0])
    # Steps to 6 are made in epoch 0 of T_max 3, those to 12 in epoch 1, the others in epoch 2.
    expected = [0.1, 0.1, 0.1, 0.075, 0.075, 0.025, 0.025]
    assert [line["learning_rate"] for line in lines] == pytest.approx(expected, rel=1e-6)


def test_evaluate_gives_what_training_reported(finished, data_dir, tmp_path):
    log_dir, _ = finished
    table = tmp_path / "table.json"
    output = commands.run(
        "evaluate.py",
        "--eval_dir",
        log_dir,
        "--data_dir",
        data_dir,
        "--log_dir",
        tmp_path / "log",
        "--json",
        table,
        "--batch_size",
        8,
        "--intra_op_threads",
        1,
    )
    rows = json.loads(table.read_text())
    assert [row["step"] for row in rows] == [12, 15, 18]
    figures = {"top1", "top5", "loss", "images", "bad_records", "seconds"}
    assert set(rows[0]) == {"checkpoint", "step", "epoch"} | figures
    reported = commands.metrics(log_dir)[1][-1]
    for name in ("step", "epoch", "top1", "top5", "images"):
        assert rows[-1][name] == reported[name]
    assert rows[-1]["loss"] == pytest.approx(reported["loss"], rel=1e-6)
    assert " step  epoch  top1    top5     loss   checkpoint_time(UTC)" in output


def test_evaluation_does_not_depend_on_the_number_of_ranks(finished, data_dir, tmp_path):
    log_dir, _ = finished
    rows = []
    for ranks in (1, 2, 3):
        table = tmp_path / f"table{ranks}.json"
        commands.run(
            "evaluate.py",
            "--eval_dir",
            log_dir / "model.ckpt-18",
            "--data_dir",
            data_dir,
            "--log_dir",
            tmp_path / "log",
            "--json",
            table,
            "--rank_size",
            ranks,
            "--batch_size",
            4,
        )
        rows += json.loads(table.read_text())
    one, two, three = rows
    for name in ("top1", "top5", "images"):
        assert one[name] == two[name] == three[name]
    assert [two["loss"], three["loss"]] == pytest.approx([one["loss"]] * 2, rel=1e-5)


def test_weights_do_not_depend_on_iterations_per_loop(finished, data_dir, tmp_path):
    commands.run(
        "train_keras.py",
        *TINY,
        "--data_dir",
        data_dir,
        "--log_dir",
        tmp_path,
        "--max_epochs",
        3,
        "--T_max",
        3,
        "--mode",
        "train",
        "--iterations_per_loop",
        1,
        "--save_checkpoints_steps",
        1000,
    )
    commands.assert_same_variables(finished[0] / "model.ckpt-18", tmp_path / "model.ckpt-18")


def test_the_same_command_continues_and_ends_where_an_uninterrupted_run_does(finished, data_dir, tmp_path):
    """Stopped in the middle of an epoch, resumed to the end: order, rate and momentum included."""
    settings = (*TINY, "--data_dir", data_dir, "--log_dir", tmp_path, "--mode", "train", "--T_max", 3)
    commands.run("train_keras.py", *settings, "--max_train_steps", 8)
    output = commands.run("train_keras.py", *settings, "--max_epochs", 3)
    assert f"continuing from {tmp_path / 'model.ckpt-8'}" in output
    commands.assert_same_variables(finished[0] / "model.ckpt-18", tmp_path / "model.ckpt-18")
    again = commands.run("train_keras.py", *settings, "--max_epochs", 3)
    assert "already holds step 18 of 18" in again


def test_finetune_takes_all_but_the_head(finished, data_dir, tmp_path):
    log_dir, _ = finished
    five = records.write_noise(tmp_path / "five", train=16, validation=8, classes=5)
    output = commands.run(
        "finetune.py",
        "--restore",
        log_dir / "model.ckpt-18",
        "--num_classes",
        5,
        "--data_dir",
        five,
        "--log_dir",
        tmp_path / "tuned",
        "--batch_size",
        8,
        "--max_train_steps",
        1,
        "--lr",
        1e-30,
        "--weight_decay",
        0,
        "--mode",
        "train",
    )
    assert "not loaded, random: linear/bias, linear/kernel" in output
    before = commands.variables(log_dir / "model.ckpt-18")
    after = commands.variables(tmp_path / "tuned" / "model.ckpt-1")
    assert after["linear/kernel"].shape == (before["linear/kernel"].shape[0], 5)
    kernels = [n for n in after if n.endswith("/kernel") and not n.startswith("linear/")]
    assert kernels
    assert all((before[name] == after[name]).all() for name in kernels), "a rate of 1e-30 moves nothing"
    assert after["global_step"] == 1, "training starts anew"


def test_a_users_callbacks_run_unchanged_and_stop_all_ranks_at_one_step(data_dir, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import tensorflow as tf\n"
        "class StopAtFour(tf.keras.callbacks.Callback):\n"
        "    def on_train_batch_end(self, batch, logs=None):\n"
        "        if batch == 3:\n"
        "            self.model.stop_training = True\n"
        "def create():\n"
        f"    return [tf.keras.callbacks.CSVLogger({str(tmp_path / 'log.csv')!r}), StopAtFour()]\n"
    )
    commands.run(
        "train_keras.py",
        *TINY,
        "--data_dir",
        data_dir,
        "--log_dir",
        tmp_path / "run",
        "--rank_size",
        2,
        "--batch_size",
        4,
        "--max_epochs",
        5,
        "--iterations_per_loop",
        2,
        "--callbacks",
        "mine:create",
        cwd=str(tmp_path),
    )
    assert os.path.exists(str(tmp_path / "run" / "model.ckpt-4.index"))
    with open(str(tmp_path / "log.csv"), encoding="utf-8") as file:
        header, row = file.read().splitlines()
    assert {"loss", "total_loss", "learning_rate"} <= set(header.split(","))
    assert row.startswith("0,")


def test_a_callback_that_sets_the_rate_from_the_host_is_refused_by_name(data_dir, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import tensorflow as tf\ndef create():\n    return [tf.keras.callbacks.ReduceLROnPlateau()]\n"
    )
    output = commands.run(
        "train_keras.py",
        *TINY,
        "--data_dir",
        data_dir,
        "--log_dir",
        tmp_path / "run",
        "--callbacks",
        "mine:create",
        code=2,
        cwd=str(tmp_path),
    )
    assert "ReduceLROnPlateau" in output
    assert "--lr_update" in output
    assert "Traceback" not in output


def test_a_record_that_is_damaged_after_the_check_is_named_without_a_traceback(tmp_path):
    """The index is valid (size and time of the shard are as they were), one byte on the disk is not."""
    data_dir = records.write_noise(tmp_path / "data", train=16, validation=8)
    open_split(data_dir, "train")
    shard = os.path.join(data_dir, "train-00000-of-00002")
    times = os.stat(shard)
    with open(shard, "r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    output = commands.run(
        "train_keras.py",
        *TINY,
        "--data_dir",
        data_dir,
        "--mode",
        "train",
        "--max_train_steps",
        2,
        "--log_dir",
        tmp_path / "run",
        code=1,
    )
    assert f"error: {shard}: record 0 at byte 0" in output
    assert "intact when the index was built" in output
    assert "Traceback" not in output


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(data_dir, tmp_path):
    """On two ranks; the evaluation of the end, which the first run did not get to, is made up for."""
    command = (
        "train_keras.py",
        "--rank_size",
        2,
        "--model",
        "densenet_tiny",
        "--data_dir",
        data_dir,
        "--log_dir",
        tmp_path,
        "--batch_size",
        4,
        "--save_checkpoints_steps",
        2,
    )
    commands.run(*command, "--max_train_steps", 4, "--mode", "train")
    with open(str(tmp_path / "model.ckpt-4.data-00000-of-00001"), "r+b") as file:
        file.truncate(100)
    output = commands.run(*command, "--max_train_steps", 2)
    assert "continuing from" in output
    assert "model.ckpt-4 is damaged" in output
    assert [line["step"] for line in commands.metrics(tmp_path)[1]] == [2]
    assert (tmp_path / "damaged-model.ckpt-4.index").exists()
    assert "nothing to train" in commands.run(*command, "--max_train_steps", 2)


def test_a_dry_run_of_the_cpu_says_the_plan_and_starts_nothing(tmp_path):
    output = commands.run(
        "train_keras.py",
        *TINY,
        "--backend",
        "tensorflow",
        "--dry_run",
        "--synthetic_data",
        "--image_size",
        32,
        "--max_train_steps",
        7,
        "--iterations_per_loop",
        4,
        "--log_dir",
        tmp_path / "run",
    )
    assert "7 steps in all" in output
    assert "none that the device lacks" in output
    assert "--lr 0.1 does not fit a global batch of 8 images" in output.partition("== notes")[2]
    assert not (tmp_path / "run").exists()
