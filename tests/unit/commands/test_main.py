"""What people type becomes one configuration or one sentence."""

import contextlib
import importlib
import json
import os
import subprocess
import sys

import pytest

import densenet_keras
from densenet_keras.backends.ascend import adapter
from densenet_keras.commands import main as cli
from densenet_keras.commands import preflight, resolution, worker
from densenet_keras.errors import RunError, UsageError
from densenet_keras.launch import folder_lock, launcher
from densenet_keras.settings import arguments, programs
from densenet_keras.settings.config import ALL, EVALUATE, FINETUNE, TRAIN, Config, fields, settings
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine of 8 cores without an adapter, in an empty folder."""
    monkeypatch.setattr(resolution, "available_cores", lambda: 8)
    monkeypatch.setattr(adapter, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)


def refused(command, *argv, environ=None):
    with pytest.raises(UsageError) as caught:
        cli.parse(command, list(argv), environ)
    return str(caught.value)


def write_run(folder, config, step=None):
    """A run folder as a training run leaves it."""
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps(config.to_json()))
    if step is not None:
        for suffix in (".index", ".data-00000-of-00001"):
            (folder / f"model.ckpt-{step}{suffix}").write_text("")
    return str(folder)


# Texts and values


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--batch_size", "64"], "batch_size", 64),
        (["--batch_size=64"], "batch_size", 64),
        (["--batch_size", "1", "--batch_size", "2"], "batch_size", 2),
        (["--lr", "1e-2"], "lr", 0.01),
        (["--lr", "1"], "lr", 1.0),
        (["--max_epochs", "None"], "max_epochs", None),
        (["--max_epochs", "3"], "max_epochs", 3),
        (["--use_nesterov", "False"], "use_nesterov", False),
        (["--use_nesterov=no"], "use_nesterov", False),
        (["--use_nesterov", "0"], "use_nesterov", False),
        (["--use_nesterov", "OFF"], "use_nesterov", False),
        (["--use_nesterov", "True"], "use_nesterov", True),
        (["--use_nesterov", "yes"], "use_nesterov", True),
        (["--synthetic_data"], "synthetic_data", True),
        (["--synthetic_data", "--lr", "1"], "synthetic_data", True),
        (["--dtype", "float16"], "dtype", "tf.float16"),
        (["--dtype", "tf.float32"], "dtype", "tf.float32"),
        (["--model", "DenseNet169"], "model", "densenet169"),
        (["--restore", "model.ckpt-3"], "restore_path", "model.ckpt-3"),
        (["--restore_exclude", "a/", "b/,c/"], "restore_exclude", ("a/", "b/", "c/")),
        (["--restore_exclude"], "restore_exclude", ()),
        (["--restore_exclude", ""], "restore_exclude", ()),
        (["--restore_exclude="], "restore_exclude", ()),
        (["--npu_option", "a=1,2", "--npu_option", "b=3"], "npu_option", ("a=1,2", "b=3")),
    ],
)
def test_what_people_type(argv, name, value):
    found = cli.parse(TRAIN, argv).get(name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("argv", "fragment"),
    [
        (["--batchsize", "32"], "unknown flag --batchsize; did you mean --batch_size?"),
        (["--batch", "32"], "unknown flag --batch; did you mean --batch_size?"),
        (["--batch-size=32"], "unknown flag --batch-size; did you mean --batch_size?"),
        (["--t_max", "3"], "did you mean --T_max?"),
        (["-lr", "3"], "unknown flag -lr; did you mean --lr?"),
        (["--learning_rate", "3"], "did you mean --lr?"),
        (["--no_use_nesterov"], "write --use_nesterov false"),
        (["--qqq"], "unknown flag --qqq; python train_keras.py --help lists all"),
        (["32"], "unexpected argument 32"),
        (["--"], "unknown flag --"),
        (["--lr"], "--lr: a value must follow"),
        (["--restore"], "--restore_path: a value must follow"),
        (["--lr", "--batch_size", "3"], "--lr: a value must follow"),
        (["--lr", "fast"], "--lr fast: must be a number"),
        (["--lr", "1_0"], "--lr 1_0: must be a number"),
        (["--lr", "-1e-3"], "--lr -0.001: must be greater than 0"),
        (["--lr", "-inf"], "--lr -inf: must be a finite number"),
        (["--batch_size", "1e3"], "--batch_size 1e3: must be a whole number"),
        (["--batch_size", "32.0"], "--batch_size 32.0: must be a whole number"),
        (["--batch_size", "-1"], "--batch_size -1: must be at least 1"),
        (["--rank_size", "0"], "--rank_size 0: must be at least 1"),
        (["--model", "densenet"], "--model densenet: must be one of densenet121"),
        (["--batch_size", ""], "--batch_size '': must be a whole number"),
        (["--use_nesterov", "maybe"], "--use_nesterov maybe: must be true or false"),
        (["--mode", "test"], "--mode test: must be one of train, evaluate, train_and_evaluate"),
        (["--dtype", "float64"], "--dtype float64: must be one of"),
        (["--config", "nothing.json"], "--config: configuration nothing.json cannot be read"),
    ],
)
def test_what_nobody_can_mean(argv, fragment):
    assert fragment in refused(TRAIN, *argv)


def test_a_flag_of_another_command_is_named_as_such():
    text = refused(EVALUATE, "--lr", "0.1")
    assert text == "--lr is a flag of train_keras.py and finetune.py, not of evaluate.py; leave it out"
    assert "not of finetune.py" in refused(FINETUNE, "--json", "table.json")


@pytest.mark.parametrize("command", ALL)
def test_every_setting_of_a_command_is_a_flag_that_takes_its_own_default(command):
    argv = ["--restore_path", "model.ckpt-1"] if command == FINETUNE else []
    expected = cli.parse(command, argv)
    for name, field in fields().items():
        if command not in field.metadata["commands"] or name == "restore_path":
            continue
        if command == FINETUNE and name == "max_train_steps":  # given, it takes the place of max_epochs
            continue
        value = expected.get(name)
        texts = list(value) if settings()[name].kind.many else [str(value)]
        assert cli.parse(command, [*argv, f"--{name}", *texts]) == expected


def test_fine_tuning_takes_its_length_from_what_is_given():
    argv = ["--restore", "model.ckpt-1", "--synthetic_data"]
    default = cli.parse(FINETUNE, argv)
    assert default.optimizer.T_max == default.run.max_epochs
    assert cli.parse(FINETUNE, [*argv, "--max_epochs", "7"]).optimizer.T_max == 7
    assert cli.parse(FINETUNE, [*argv, "--max_epochs", "7", "--T_max", "9"]).optimizer.T_max == 9
    by_steps = cli.parse(FINETUNE, [*argv, "--max_train_steps", "5"]).run
    assert (by_steps.max_epochs, by_steps.max_train_steps) == (None, 5)


@pytest.mark.parametrize("command", ALL)
def test_help_lists_every_flag_with_its_default(command, capsys):
    with pytest.raises(SystemExit) as caught:
        arguments.read(programs.program(command), ["--help_all"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, field in fields().items():
        assert (f" --{name} " in text) == (command in field.metadata["commands"])
    assert f"[{Config.defaults(command).run.log_dir}]" in text
    assert "--config FILE" in text


@pytest.mark.parametrize("command", ALL)
def test_help_explains_eight_flags_and_names_the_others(command, capsys):
    with pytest.raises(SystemExit) as caught:
        arguments.read(programs.program(command), ["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    explained, _, others = text.partition("more flags, explained by --help_all:")
    described = programs.program(command)
    assert len(described.common) == 8
    assert f"python {described.call} {described.example}" in " ".join(explained.split())
    for name in described.settings:
        assert f"--{name}" in (explained if name in described.common else others)
    assert len(text.splitlines()) < 60


@pytest.mark.parametrize("command", ALL)
def test_the_example_of_a_command_is_one_that_it_takes(command):
    described = programs.program(command)
    assert cli.parse(command, described.example.split())


@pytest.mark.parametrize(
    ("flag", "fragment"),
    [
        ("--resume", "continues the run in --log_dir"),
        ("--gpu", "--rank_size N"),
        ("--amp", "--precision_mode"),
        ("--include_top", "finetune.py"),
        ("--weights", "--restore"),
    ],
)
def test_what_is_done_in_another_way_here_is_said(flag, fragment):
    assert fragment in refused(TRAIN, flag, "1")


@pytest.mark.parametrize("argv", [["--version"], ["train", "--version"], ["rank_table", "--version"]])
def test_the_version_is_told(argv, capsys):
    with contextlib.suppress(SystemExit):
        assert cli.run_command(argv) == 0
    assert capsys.readouterr().out == f"densenet_keras {densenet_keras.__version__}\n"


def test_commands_are_listed_and_a_wrong_one_is_corrected(capsys):
    assert cli.run_command([]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in (*programs.SCRIPTS, *cli.tools()))
    assert cli.run_command(["rank_tabel"]) == 2
    assert "did you mean rank_table?" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(cli.tools()))
def test_every_tool_has_help_with_an_example(name, capsys):
    module = importlib.import_module(f"densenet_keras.{cli.tools()[name].module}")
    with pytest.raises(SystemExit) as caught:
        cli.run_command([name, "--help"])
    assert caught.value.code == 0
    assert f"python -m densenet_keras {name} {module.EXAMPLE}" in " ".join(capsys.readouterr().out.split())
    assert module.Settings.__doc__.count("\n\n") == 1


# What is left open is filled in


@pytest.mark.parametrize(
    ("model", "classes", "size", "growth"),
    [("densenet121", 1000, 224, 32), ("densenet161", 1000, 224, 48), ("densenet_cifar", 10, 32, 12)],
)
def test_the_network_decides_its_input_and_output(model, classes, size, growth):
    config = cli.parse(TRAIN, ["--model", model]).model
    assert (config.num_classes, config.image_size, config.growth_rate) == (classes, size, growth)
    config = cli.parse(TRAIN, ["--model", model, "--num_classes", "7", "--image_size", "64"]).model
    assert (config.num_classes, config.image_size) == (7, 64)


@pytest.mark.parametrize(("ranks", "threads"), [(1, 8), (2, 4), (3, 2), (16, 1)])
def test_ranks_share_the_cores(ranks, threads):
    config = cli.parse(TRAIN, ["--rank_size", str(ranks)])
    assert (config.data.data_threads, config.device.intra_op_threads) == (threads, threads)
    assert cli.parse(TRAIN, ["--rank_size", str(ranks), "--data_threads", "5"]).data.data_threads == 5


def test_a_rank_started_by_others_shares_the_cores_of_its_host():
    environ = {
        "OMPI_COMM_WORLD_RANK": "5",
        "OMPI_COMM_WORLD_SIZE": "16",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    }
    config = cli.parse(TRAIN, [], environ)
    assert (config.device.rank_size, config.data.data_threads) == (16, 2)
    assert "--rank_size 8" in refused(TRAIN, "--rank_size", "8", environ=environ)


@pytest.mark.parametrize(("installed", "backend"), [(False, "tensorflow"), (True, "ascend")])
def test_auto_takes_the_adapter_where_it_is_installed(monkeypatch, installed, backend):
    monkeypatch.setattr(adapter, "is_available", lambda: installed)
    assert cli.parse(TRAIN, []).device.backend == backend
    assert cli.parse(TRAIN, ["--backend", "tensorflow"]).device.backend == "tensorflow"


def test_looking_for_the_adapter_does_not_import_it(tmp_path, monkeypatch):
    monkeypatch.undo()
    assert not adapter.is_available()
    package = tmp_path / adapter.PACKAGE
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert adapter.is_available()


def test_there_is_one_way_to_evaluate():
    by_mode = cli.parse(TRAIN, ["--mode", "evaluate", "--log_dir", "logs"])
    by_command = cli.parse(EVALUATE, ["--log_dir", "logs"])
    assert by_mode == by_command
    assert (by_mode.command, by_mode.run.mode) == (EVALUATE, EVALUATE)


# Earlier runs


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        (TRAIN, ["--lr", "0.3", "--model", "densenet_tiny", "--rank_size", "2", "--use_nesterov", "no"]),
        (TRAIN, ["--mode", "evaluate", "--eval_dir", "somewhere", "--json", "table.json"]),
        (EVALUATE, ["--eval_dir", "somewhere", "--batch_size", "7"]),
        (FINETUNE, ["--restore", "ckpt", "--num_classes", "10", "--restore_exclude", "a/", "b/"]),
    ],
)
def test_a_run_json_gives_the_run_back(tmp_path, command, argv):
    config = cli.parse(command, argv)
    path = tmp_path / "saved.json"
    path.write_text(json.dumps(config.to_json()))
    assert cli.parse(command, ["--config", str(path)]) == config
    changed = cli.parse(command, ["--batch_size", "3", "--config", str(path)])
    assert changed == config.replace(batch_size=3)


@pytest.mark.parametrize("command", [TRAIN, FINETUNE])
def test_steps_that_are_given_take_precedence_over_the_epochs_of_a_file(tmp_path, command):
    given = ["--model", "densenet_tiny", "--max_epochs", "3"] + (
        ["--restore", "r"] if command == FINETUNE else []
    )
    path = tmp_path / "saved.json"
    path.write_text(json.dumps(cli.parse(command, [*given, "--synthetic_data"]).to_json()))
    longer = cli.parse(command, ["--config", str(path), "--max_train_steps", "700"])
    assert (longer.run.max_epochs, longer.run.max_train_steps) == (None, 700)
    both = cli.parse(command, ["--config", str(path), "--max_train_steps", "700", "--max_epochs", "4"])
    assert both.run.max_epochs == 4
    assert cli.parse(command, ["--config", str(path)]).run.max_epochs == 3


@pytest.mark.parametrize("command", [TRAIN, FINETUNE])
def test_a_run_that_was_moved_is_not_begun_anew_where_it_was(tmp_path, command):
    more = ["--restore", "r"] if command == FINETUNE else []
    there = ["--model", "densenet_tiny", "--synthetic_data", "--log_dir", str(tmp_path / "old"), *more]
    run = write_run(tmp_path / "new", cli.parse(command, there), step=5)
    config = os.path.join(run, "run.json")
    message = refused(command, "--config", config)
    assert f"give --log_dir {run} to continue these, or --log_dir {tmp_path / 'old'} to start" in message
    assert cli.parse(command, ["--config", config, "--log_dir", run]).run.log_dir == run
    write_run(tmp_path / "old", cli.parse(command, there), step=5)
    assert cli.parse(command, ["--config", config]).run.log_dir == str(tmp_path / "old"), "a copy"


def test_of_a_training_run_json_an_evaluation_takes_what_applies(tmp_path):
    trained = cli.parse(TRAIN, ["--model", "densenet_tiny", "--data_dir", "D", "--log_dir", "RUN"])
    path = tmp_path / "saved.json"
    path.write_text(json.dumps(trained.to_json()))
    config = cli.parse(EVALUATE, ["--config", str(path)])
    assert (config.model, config.data.data_dir) == (trained.model, "D")
    assert config.run.eval_dir == "RUN"
    assert config.run.log_dir == Config.defaults(EVALUATE).run.log_dir
    assert config.optimizer == Config().optimizer

    run = write_run(tmp_path / "moved", trained, step=5)
    config = cli.parse(EVALUATE, ["--config", os.path.join(run, "run.json")])
    assert config.run.eval_dir == run

    config = cli.parse(FINETUNE, ["--config", str(path), "--restore", "RUN"])
    assert config.run.log_dir == Config.defaults(FINETUNE).run.log_dir


def test_unknown_settings_of_a_config_file_are_named(tmp_path):
    path = tmp_path / "saved.json"
    path.write_text(json.dumps({"run": {"speed": 3}}))
    text = refused(TRAIN, "--config", str(path))
    assert str(path) in text
    assert "run.speed is not a setting of this version" in text


@pytest.fixture
def trained(tmp_path):
    config = Config().replace(
        model="densenet_tiny", num_classes=7, image_size=64, growth_rate=5, label_offset=0, bn_epsilon=1e-5
    )
    return write_run(tmp_path / "trained", config, step=12)


@pytest.mark.parametrize("suffix", ["", "/model.ckpt-12", "/model.ckpt-12.index"])
def test_evaluation_takes_the_network_from_the_run(trained, suffix):
    config = cli.parse(EVALUATE, ["--eval_dir", trained + suffix])
    assert config.model == Config().model.__class__(
        model="densenet_tiny", num_classes=7, image_size=64, growth_rate=5, bn_epsilon=1e-5
    )
    assert config.data.label_offset == 0
    larger = cli.parse(EVALUATE, ["--eval_dir", trained, "--image_size", "96", "--label_offset", "1"])
    assert (larger.model.image_size, larger.data.label_offset, larger.model.num_classes) == (96, 1, 7)


def test_fine_tuning_takes_the_network_from_the_run(trained):
    config = cli.parse(FINETUNE, ["--restore", trained, "--num_classes", "3"])
    assert (config.model.model, config.model.growth_rate, config.model.num_classes) == ("densenet_tiny", 5, 3)
    assert config.model.image_size == 64
    assert config.data.label_offset == 1  # new data, new labels
    assert cli.parse(FINETUNE, ["--restore", trained]).model.num_classes == 7


@pytest.mark.parametrize(
    ("command", "flag", "argv"),
    [
        (EVALUATE, "--eval_dir", ["--model", "densenet121"]),
        (EVALUATE, "--eval_dir", ["--num_classes", "10"]),
        (FINETUNE, "--restore_path", ["--growth_rate", "8"]),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(trained, command, flag, argv):
    text = refused(command, flag, trained, *argv)
    assert " ".join(argv) in text
    assert f"{flag} {trained} was trained with" in text


def test_an_edited_run_json_is_validated_too(tmp_path):
    run = write_run(tmp_path / "run", Config().replace(drop_rate=7.0), step=5)
    assert "--drop_rate 7.0: must be" in refused(EVALUATE, "--eval_dir", run)


def test_a_continued_run_keeps_its_threads(tmp_path):
    stored = Config().replace(intra_op_threads=3)
    run = write_run(tmp_path / "run", stored)
    assert cli.parse(TRAIN, ["--log_dir", run]).device.intra_op_threads == 8  # it never got to a checkpoint
    write_run(tmp_path / "run", stored, step=5)
    assert cli.parse(TRAIN, ["--log_dir", run]).device.intra_op_threads == 3
    assert cli.parse(TRAIN, ["--log_dir", run, "--intra_op_threads", "2"]).device.intra_op_threads == 2


def test_a_continued_run_keeps_its_operations(tmp_path):
    def parsed(*argv):
        return cli.parse(TRAIN, ["--log_dir", str(tmp_path / "run"), *argv]).device.fast_cpu

    assert parsed() is True
    write_run(tmp_path / "run", Config(), step=5)  # of a version that knew no other than the plain ones
    assert parsed() is False
    assert parsed("--fast_cpu", "true") is True
    write_run(tmp_path / "run", Config().replace(fast_cpu=True), step=5)
    assert parsed() is True


def test_loops_and_saves_are_the_backends_unless_given_or_continued(tmp_path):
    def parsed(*argv):
        run = cli.parse(TRAIN, ["--log_dir", str(tmp_path / "run"), *argv]).run
        return run.iterations_per_loop, run.save_checkpoints_steps

    assert parsed("--backend", "tensorflow") == (10, 5000)
    assert parsed("--backend", "ascend") == (0, 0)
    assert parsed("--backend", "ascend", "--iterations_per_loop", "7") == (7, 0)
    stored = Config().replace(iterations_per_loop=10, save_checkpoints_steps=5000)
    write_run(tmp_path / "run", stored, step=5)
    assert parsed("--backend", "ascend") == (10, 5000)
    assert parsed("--backend", "ascend", "--save_checkpoints_steps", "0") == (10, 0)


# Exit codes


@pytest.mark.parametrize(
    ("outcome", "code", "text"),
    [
        (0, 0, ""),
        (143, 143, ""),
        (UsageError("--lr: wrong"), 2, "error: --lr: wrong\n"),
        (RunError("rank 1 failed"), 1, "error: rank 1 failed\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_every_end_has_its_exit_code(monkeypatch, capsys, outcome, code, text):
    def launch(config, command):
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(launcher, "launch", launch)
    monkeypatch.setattr(preflight, "check", lambda config, environ: None)
    monkeypatch.setattr(sys, "argv", ["train_keras.py"])
    monkeypatch.setattr(os, "environ", {})
    assert cli.main(TRAIN) == code
    assert capsys.readouterr().err == text


def test_nothing_starts_when_the_command_line_is_wrong(monkeypatch, capsys):
    monkeypatch.setattr(launcher, "launch", lambda config, command: pytest.fail("started"))
    monkeypatch.setattr(sys, "argv", ["train_keras.py", "--batch_size", "0"])
    assert cli.main(TRAIN) == 2
    assert capsys.readouterr().err.startswith("error: --batch_size 0: must be at least 1")


# The scripts themselves


def run_script(name, *argv, folder):
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, os.path.join(ROOT, name), *argv],
        cwd=str(folder), env=clean, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["train_keras.py", "evaluate.py", "finetune.py"])
def test_scripts_are_short_and_run_from_anywhere(name, tmp_path):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        assert len(file.readlines()) <= 30
    result = run_script(name, "--help", folder=tmp_path)
    assert result.returncode == 0
    assert f"usage: python {name}" in result.stdout
    assert os.listdir(str(tmp_path)) == []


def test_without_data_training_ends_with_a_usage_error_and_leaves_nothing(tmp_path):
    result = run_script("train_keras.py", folder=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: --data_dir path/data")
    assert os.listdir(str(tmp_path)) == []


def test_the_command_imports_no_tensorflow(tmp_path):
    code = (
        "import sys\n"
        "from densenet_keras.commands import main as cli; from densenet_keras.settings import config\n"
        "assert cli.main(config.TRAIN) == 2\n"
        "loaded = [name for name in sys.modules if name.split('.')[0] in ('tensorflow', 'keras')]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, "--model", "densenet_tiny"],
        cwd=str(tmp_path), env={**os.environ, "PYTHONPATH": ROOT}, check=True,
    )  # fmt: skip


@pytest.mark.parametrize(("rank", "writes"), [(0, True), (1, False)])
def test_process_that_is_a_rank_runs_in_place(tmp_path, monkeypatch, rank, writes):
    ran = []
    monkeypatch.setattr(worker, "run_configuration", lambda config: ran.append(config) or 7)
    monkeypatch.setenv("RANK_ID", str(rank))
    monkeypatch.setenv("RANK_SIZE", "2")
    config = Config().replace(log_dir=str(tmp_path), backend="tensorflow")
    assert cli._run(config) == 7
    assert ran == [config.replace(rank_size=2)]
    assert (tmp_path / "run.json").exists() == writes


@pytest.mark.parametrize("watched", [True, False])
def test_somebody_at_a_terminal_gets_a_word_before_the_ranks_load_tensorflow(watched, monkeypatch, capsys):
    monkeypatch.setattr(launcher, "launch", lambda config, command: 0)
    monkeypatch.setattr(cli.sys.stderr, "isatty", lambda: watched)
    assert cli._run(Config().replace(backend="tensorflow")) == 0
    assert capsys.readouterr().err == ("checked; loading TensorFlow\n" if watched else "")


@pytest.mark.parametrize("flag", ["--help", "--learning_rat"])
def test_help_and_refused_flags_load_only_what_they_need(flag):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", os.path.join(ROOT, "train_keras.py"), flag],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "densenet_keras.settings.config" in loaded
    heavy = ("numpy", "tqdm", "tensorflow", "densenet_keras.backends", "densenet_keras.checkpoints")
    assert not loaded & set(heavy)


def test_two_evaluations_do_not_share_a_folder(tmp_path, monkeypatch):
    """Ranks read their settings there: the first would evaluate what the second was asked to."""
    monkeypatch.setattr(folder_lock, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(launcher, "launch", lambda config, command: 0)
    run = write_run(tmp_path / "run", cli.parse(TRAIN, ["--model", "densenet_tiny"]), step=3)
    config = cli.parse(EVALUATE, ["--eval_dir", run, "--synthetic_data"])
    with folder_lock.held(config.run.log_dir), pytest.raises(
        UsageError, match="at work in it; .*another --log_dir"
    ):
        cli._run(config)
    with folder_lock.held(str(tmp_path / "other")):
        assert cli._run(config) == 0
