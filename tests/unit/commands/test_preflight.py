"""What cannot run is refused before it starts, with the flag, the value and a way out."""

import io
import json
import os
import sys
from pathlib import Path

import pytest

from densenet_keras.backends.ascend import adapter
from densenet_keras.commands import main as cli
from densenet_keras.commands import preflight
from densenet_keras.data import inputs, records
from densenet_keras.errors import UsageError
from densenet_keras.settings.config import ALL, EVALUATE, FINETUNE, TRAIN, Config
from densenet_keras.topology import Topology
from tests.support import records as fake


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    monkeypatch.setattr(adapter, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data_dir(tmp_path):
    return str(fake.write_noise(tmp_path / "data", train=6, validation=4, size=(6, 5)))


def touch_checkpoint(folder, step=3, config=None):
    folder.mkdir(exist_ok=True)
    for suffix in (".index", ".data-00000-of-00001"):
        (folder / f"model.ckpt-{step}{suffix}").write_text("")
    if config is not None:
        (folder / "run.json").write_text(json.dumps(config.to_json()))
    return str(folder)


def check(command, *argv):
    preflight.check(cli.parse(command, ["--model", "densenet_tiny", *argv]), {})


def refused(command, *argv):
    with pytest.raises(UsageError) as caught:
        check(command, *argv)
    return str(caught.value)


# Ranks


def test_more_ranks_than_the_cores_can_start_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(preflight, "available_cores", lambda: 2)
    check(TRAIN, "--synthetic_data", "true", "--rank_size", "32")
    message = refused(TRAIN, "--synthetic_data", "true", "--rank_size", "300")
    assert "--rank_size 300" in message
    assert "2 cores" in message
    assert "give --rank_size 2" in message
    check(TRAIN, "--synthetic_data", "true", "--rank_size", "300", "--dry_run", "true")


def test_each_rank_that_somebody_started_says_which_variables_it_believes(capsys):
    config = cli.parse(TRAIN, ["--model", "densenet_tiny", "--synthetic_data", "true", "--rank_size", "300"])
    preflight.check(config, {"RANK_ID": "1", "RANK_SIZE": "300"})
    assert capsys.readouterr().err.startswith("note: rank 1 of 300, as RANK_ID, RANK_SIZE say\n")


# Data


def test_good_data_passes_and_leaves_no_run_folder(data_dir, tmp_path):
    check(TRAIN, "--data_dir", data_dir)
    assert not (tmp_path / "model_1p").exists()


def test_training_reads_the_shards_that_were_asked_for(data_dir):
    os.unlink(os.path.join(data_dir, "train-00001-of-00002"))
    assert "train-00001-of-00002" in refused(TRAIN, "--data_dir", data_dir)
    check(TRAIN, "--data_dir", data_dir, "--shards", "0")
    config = cli.parse(TRAIN, ["--model", "densenet_tiny", "--data_dir", data_dir, "--shards", "0"])
    assert inputs.Inputs(config, Topology(), train=True, evaluate=True).train_images == 3
    assert "--shards first: must be numbers and ranges" in refused(TRAIN, "--shards", "first")


def test_a_step_that_takes_more_images_than_there_are_is_mentioned(data_dir, capsys):
    check(TRAIN, "--data_dir", data_dir, "--batch_size", "3", "--rank_size", "2")
    assert capsys.readouterr().err == ""
    check(TRAIN, "--data_dir", data_dir, "--batch_size", "4", "--rank_size", "2")
    assert "takes 8 images (--batch_size times ranks), and there are 6" in capsys.readouterr().err


def test_missing_folder_is_named():
    assert refused(TRAIN).startswith("--data_dir path/data")


def test_a_flag_left_out_is_said_to_be_missing():
    assert "--data_dir is missing; give the folder" in refused(TRAIN)
    assert "--eval_dir is missing; give the run folder" in refused(EVALUATE, "--synthetic_data")
    assert "missing;" not in refused(TRAIN, "--data_dir", "elsewhere")


@pytest.mark.parametrize(
    ("mode", "missing"), [("train_and_evaluate", "validation"), ("train", None), ("evaluate", "validation")]
)
def test_each_mode_needs_its_own_splits(data_dir, tmp_path, mode, missing):
    for name in os.listdir(data_dir):
        if name.startswith("validation"):
            os.remove(os.path.join(data_dir, name))
    run = touch_checkpoint(tmp_path / "run")
    argv = ["--data_dir", data_dir, "--mode", mode, "--eval_dir", run]
    if missing:
        assert f"no shard {missing}-*" in refused(TRAIN, *argv)
    else:
        check(TRAIN, *argv)


def test_evaluation_needs_no_training_split(data_dir, tmp_path):
    for name in os.listdir(data_dir):
        if name.startswith("train"):
            os.remove(os.path.join(data_dir, name))
    check(EVALUATE, "--data_dir", data_dir, "--eval_dir", touch_checkpoint(tmp_path / "run"))


def test_a_missing_split_is_noticed_before_the_other_is_scanned(data_dir, monkeypatch):
    for name in os.listdir(data_dir):
        if name.startswith("validation"):
            os.remove(os.path.join(data_dir, name))
    monkeypatch.setattr(records, "open_split", lambda *args, **options: pytest.fail("scanned"))
    assert "validation" in refused(TRAIN, "--data_dir", data_dir)


def test_labels_out_of_range_are_refused(data_dir):
    assert "--num_classes 2" in refused(TRAIN, "--data_dir", data_dir, "--num_classes", "2")


def test_a_damaged_shard_is_refused(data_dir):
    path = os.path.join(data_dir, sorted(n for n in os.listdir(data_dir) if n.startswith("train"))[0])
    with open(path, "r+b") as file:
        file.seek(40)
        file.write(b"\xff\xff")
    assert path in refused(TRAIN, "--data_dir", data_dir)


def test_synthetic_data_needs_no_files():
    check(TRAIN, "--synthetic_data")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_long_scan_says_how_long(monkeypatch, is_terminal):
    clock = iter([0.0, 0.1, 40.0, 41.0, 80.0, 80.1])
    monkeypatch.setattr(preflight.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stderr", stream)
    report = preflight.scan_progress("train")
    for done in (1, 50, 51, 100, 100):
        report(done * 10**9, 100 * 10**9)
    lines = stream.getvalue().replace("\r", "\n").split("\n")
    lines = [line for line in lines if line]
    assert lines[0] == "indexing train records, once: 50.0 of 100.0 GB, 0:40 left"
    assert "100.0 of 100.0 GB, 0:00 left" in lines[-1]
    assert len(lines) == (3 if is_terminal else 2)
    assert stream.getvalue().endswith("\n")


def test_a_short_scan_says_nothing(monkeypatch, capsys):
    report = preflight.scan_progress("train")
    report(5, 10)
    report(10, 10)
    assert capsys.readouterr().err == ""


# Folders and files


@pytest.mark.parametrize("log_dir", ["taken", "taken/below"])
def test_a_log_dir_that_cannot_become_one(tmp_path, log_dir):
    (tmp_path / "taken").write_text("")
    assert refused(TRAIN, "--synthetic_data", "--log_dir", log_dir).startswith(f"--log_dir {log_dir}: cannot")


def test_a_read_only_log_dir(monkeypatch, tmp_path):
    monkeypatch.setattr(preflight.os, "access", lambda path, mode: path != str(tmp_path))
    assert "--log_dir new/run: cannot be created" in refused(
        TRAIN, "--synthetic_data", "--log_dir", "new/run"
    )


def test_a_log_name_that_is_a_folder(tmp_path):
    (tmp_path / "run" / "logs").mkdir(parents=True)
    argv = ["--synthetic_data", "--log_dir", "run", "--log_name", "logs"]
    assert "--log_name logs: is a folder" in refused(TRAIN, *argv)


@pytest.mark.parametrize("path", ["missing/table.json", "run", "/dev/null"])
def test_a_table_that_cannot_be_written(tmp_path, path):
    run = touch_checkpoint(tmp_path / "run")
    argv = ["--synthetic_data", "--eval_dir", run, "--json", path]
    assert f"--json {path}: cannot be written" in refused(EVALUATE, *argv)


def test_a_checkpoint_to_evaluate_must_be_there(tmp_path, data_dir):
    assert refused(EVALUATE, "--data_dir", data_dir).startswith("--eval_dir path/eval: ")
    assert refused(EVALUATE, "--data_dir", data_dir, "--eval_dir", data_dir).startswith("--eval_dir ")
    run = touch_checkpoint(tmp_path / "run")
    check(EVALUATE, "--data_dir", data_dir, "--eval_dir", os.path.join(run, "model.ckpt-3"))
    os.remove(os.path.join(run, "model.ckpt-3.data-00000-of-00001"))
    assert "data-00000-of-00001" in refused(
        EVALUATE, "--data_dir", data_dir, "--eval_dir", os.path.join(run, "model.ckpt-3")
    )


@pytest.mark.parametrize("command", [TRAIN, FINETUNE])
def test_a_checkpoint_to_start_from_must_be_there(command):
    assert refused(command, "--synthetic_data", "--restore", "gone").startswith("--restore_path gone: ")


def test_fine_tuning_does_not_continue_the_run_it_starts_from(tmp_path):
    run = touch_checkpoint(tmp_path / "run")
    text = refused(FINETUNE, "--synthetic_data", "--restore", run, "--log_dir", "./run/")
    assert "--log_dir ./run/: is the folder that --restore_path reads" in text
    check(FINETUNE, "--synthetic_data", "--restore", run)


def test_callbacks_are_looked_for_but_not_imported(tmp_path):
    (tmp_path / "mine.py").write_text("raise AssertionError('imported')")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("raise AssertionError('imported')")
    (tmp_path / "package" / "inner.py").write_text("raise AssertionError('imported')")
    (tmp_path / "spaces" / "inner").mkdir(parents=True)  # packages without __init__.py
    (tmp_path / "spaces" / "inner" / "deep.py").write_text("raise AssertionError('imported')")
    for module in ("mine", "package.inner", "spaces.inner.deep"):
        check(TRAIN, "--synthetic_data", "--callbacks", f"{module}:make")
    for module in ("yours", "package.other", "mine.inner"):
        assert f"no module {module}" in refused(TRAIN, "--synthetic_data", "--callbacks", f"{module}:make")


# The run in log_dir


@pytest.mark.parametrize(
    ("stored", "argv"),
    [
        ({"model": "densenet121"}, ["--model", "densenet_tiny"]),
        ({}, ["--num_classes", "11"]),
        ({}, ["--image_size", "64"]),
        ({}, ["--growth_rate", "9"]),
        ({}, ["--bn_size", "2"]),
        ({}, ["--bn_momentum", "0.99"]),
        ({}, ["--bn_epsilon", "1e-5"]),
    ],
)
def test_a_run_is_not_continued_with_another_network(tmp_path, stored, argv):
    config = cli.parse(TRAIN, ["--model", "densenet_tiny"]).replace(**stored)
    run = touch_checkpoint(tmp_path / "run", config=config)
    check(TRAIN, "--synthetic_data", "--log_dir", str(tmp_path / "other"), *argv)
    text = refused(TRAIN, "--synthetic_data", "--log_dir", run, *argv)
    name = argv[0][2:]
    assert text.startswith(f"{argv[0]} ")
    assert f"has {config.get(name)}" in text
    assert "another --log_dir" in text
    os.remove(os.path.join(run, "model.ckpt-3.index"))
    check(TRAIN, "--synthetic_data", "--log_dir", run, *argv)  # nothing is there to continue


def test_other_changes_to_a_continued_run_are_reported(tmp_path, capsys):
    config = cli.parse(TRAIN, ["--model", "densenet_tiny", "--synthetic_data", "--lr", "0.5"])
    run = touch_checkpoint(tmp_path / "run", config=config)
    check(TRAIN, "--synthetic_data", "--log_dir", run, "--lr", "0.5")
    assert capsys.readouterr().err == ""
    check(TRAIN, "--synthetic_data", "--log_dir", run, "--lr", "0.5", "--batch_size", "8")
    said = capsys.readouterr().err
    assert "batch_size 32 -> 8" in said
    assert "global batch 32 -> 8 images" in said
    two_ranks = ("--batch_size", "16", "--rank_size", "2")
    check(TRAIN, "--synthetic_data", "--log_dir", run, "--lr", "0.5", *two_ranks)
    assert "global batch" not in capsys.readouterr().err
    environ = {"RANK_ID": "1", "RANK_SIZE": "2"}  # one of several ranks says it, not each
    argv = ["--model", "densenet_tiny", "--synthetic_data", "--log_dir", run]
    preflight.check(cli.parse(TRAIN, argv, environ), environ)
    assert "changes" not in capsys.readouterr().err


def test_a_frozen_part_does_not_start_to_learn_within_a_run(tmp_path, capsys):
    source = touch_checkpoint(tmp_path / "source", config=cli.parse(TRAIN, ["--model", "densenet_tiny"]))
    argv = ["--synthetic_data", "--restore", source, "--freeze"]
    stored = cli.parse(FINETUNE, [*argv, "block1"])
    run = touch_checkpoint(tmp_path / "run", config=stored)
    text = refused(FINETUNE, *argv, "stem", "--log_dir", run)
    assert text.startswith("--freeze stem: ")
    assert "give --freeze block1 to continue it" in text
    assert f"start from it with --restore {run} into another --log_dir" in text
    text = refused(TRAIN, "--synthetic_data", "--log_dir", run)
    assert "continue it with finetune.py --freeze block1," in text
    check(FINETUNE, *argv, "block1", "--log_dir", run)
    assert capsys.readouterr().err == ""
    check(FINETUNE, *argv, "block2", "--log_dir", run)
    assert "freeze block1 -> block2" in capsys.readouterr().err


def test_classes_of_the_network_that_the_data_do_not_have_are_mentioned(data_dir, capsys):
    argv = ["--data_dir", data_dir, "--batch_size", "2"]
    check(TRAIN, *argv)
    assert capsys.readouterr().err == "", "nothing names the classes"
    with open(os.path.join(data_dir, "labels.txt"), "w") as file:
        file.write("".join(f"{label}:name {label}\n" for label in range(1, 7)))
    check(TRAIN, *argv)
    said = capsys.readouterr().err
    assert "labels.txt names 6 classes, and the network gets 10; " in said
    assert "give --num_classes 6" in said
    check(TRAIN, *argv, "--num_classes", "6")
    check(EVALUATE, *argv, "--eval_dir", touch_checkpoint(Path(data_dir)))
    assert capsys.readouterr().err == ""


# Flags of the NPU


@pytest.mark.parametrize(
    "argv",
    [
        ["--precision_mode", "force_fp16"],
        ["--loss_scale", "dynamic"],
        ["--hcom_parallel", "false"],
        ["--npu_option", "enable_small_channel=1"],
    ],
)
def test_flags_of_the_npu_are_refused_elsewhere(argv):
    text = refused(TRAIN, "--synthetic_data", *argv)
    assert text.startswith(argv[0])
    assert "only with --backend ascend" in text


def test_flags_of_the_npu_at_their_defaults_are_harmless():
    check(TRAIN, "--synthetic_data", "--precision_mode", "allow_mix_precision", "--dry_run", "false")


@pytest.mark.parametrize(
    "argv",
    [
        ["--loss_scale", "0.5"],
        ["--loss_scale", "big"],
        ["--gradient_split", "size:60,20"],
        ["--gradient_split", "idx:5,3"],
        ["--dump_step", "x", "--dump", "."],
        ["--npu_option", "enable_small_chanel=1"],
        ["--npu_option", "novalue"],
        ["--graph_memory_max_size", "26GB"],
        ["--modify_mixlist", "missing.json"],
    ],
)
def test_flags_of_the_npu_are_checked_on_it(argv):
    text = refused(TRAIN, "--synthetic_data", "--backend", "ascend", *argv)
    assert argv[0][2:] in text


def test_a_dry_run_needs_no_data(capsys):
    check(TRAIN, "--backend", "ascend", "--dry_run")
    assert "path/data" in capsys.readouterr().err


@pytest.mark.parametrize("command", ALL)
def test_ascend_defaults_pass(command, tmp_path):
    run = touch_checkpoint(tmp_path / "run")
    check(command, "--synthetic_data", "--backend", "ascend", *{
        TRAIN: [], EVALUATE: ["--eval_dir", run], FINETUNE: ["--restore", run]
    }[command])  # fmt: skip


def test_an_image_too_small_for_the_network():
    config = cli.parse(TRAIN, []).replace(image_size=1)
    with pytest.raises(UsageError) as caught:
        preflight.check(config, {})
    assert "--image_size 1: densenet121 needs at least" in str(caught.value)
    assert Config().model.image_size is None


@pytest.mark.parametrize("name", ["metrics.jsonl", "plan.json", "labels.txt"])
def test_a_folder_in_the_place_of_a_file_of_the_run_is_refused(tmp_path, name):
    (tmp_path / "run" / name).mkdir(parents=True)
    message = refused(TRAIN, "--synthetic_data", "--log_dir", str(tmp_path / "run"))
    assert f"{name} in it is not a file" in message
    assert "move that folder away" in message


def test_so_is_a_file_in_the_place_of_a_folder_of_the_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "rank_logs").touch()
    assert "rank_logs in it is not a folder" in refused(
        TRAIN, "--synthetic_data", "--log_dir", str(tmp_path / "run")
    )
