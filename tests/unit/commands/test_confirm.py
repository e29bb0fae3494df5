"""`confirm` before it starts anything, and what it makes of lines; a stand-in for the runs."""

import dataclasses
import json
import os
import signal
import subprocess

import pytest

from densenet_keras import backends
from densenet_keras.backends import confirm_lines
from densenet_keras.backends.confirmation import Backing, How, Line, Ran, RunFailed, failed, judged
from densenet_keras.commands import confirm, confirm_data, confirm_process, confirm_report
from densenet_keras.commands.confirm_settings import ConfirmSettings
from densenet_keras.errors import UsageError
from densenet_keras.settings.config import Config
from tests.support import records


def settings(tmp_path, **more):
    return ConfirmSettings(data_dir=str(tmp_path / "data"), log_dir=str(tmp_path / "out"), **more)


def ran(tmp_path, name="base", code=1, printed="RunError: it broke\n", **more):
    folder = tmp_path / name
    (folder / "run").mkdir(parents=True)
    (folder / "output.log").write_text(printed)
    written = Config().replace(first_step_timeout_seconds=100).to_json()
    (folder / "run" / "run.json").write_text(json.dumps(written))
    return Ran(name, str(folder), ("python",), code, 5.0, **more)


class Runs:
    """Remembers blame as `confirm_runs.Runs` does, and starts nothing."""

    def __init__(self, used=()):
        self.blamed, self.runs_ahead, self.used = {}, 0, list(used)

    def begin(self, line):
        self.line = line.name

    def used_by_line(self):
        return {each.name: each for each in self.used}

    def blame(self, line):
        for each in self.used:
            if each.code:
                self.blamed.setdefault(each.name, line)


def tried(tmp_path, checks, runs):
    lines = [Line(name, f"claim of {name}", check) for name, check in checks.items()]
    report = confirm_report.Report(settings(tmp_path), "tensorflow", lines, {})
    confirm._try_all(settings(tmp_path), lines, runs, report)
    return report, json.loads((tmp_path / "out" / "confirmation.json").read_text())["lines"]


def test_one_line_that_breaks_does_not_end_the_others(tmp_path):
    def breaks(trials):
        raise KeyError("no such column")

    report, lines = tried(tmp_path, {"one": breaks, "two": lambda trials: judged(True, "it holds")}, Runs())
    assert lines["one"]["verdict"] == "failed"
    assert "no such column" in lines["one"]["finding"]
    assert "Traceback" in lines["one"]["evidence"]["traceback"]
    assert lines["two"]["verdict"] == "passed"
    assert report.failed == ["one"]


def test_a_run_that_failed_is_told_once(tmp_path):
    base = ran(tmp_path)

    def needs_it(trials):
        raise RunFailed(base)

    _, lines = tried(tmp_path, {"one": lambda t: failed("it broke"), "two": needs_it}, Runs([base]))
    assert (lines["two"]["verdict"], lines["two"]["finding"]) == ("not tried", "its run base failed, see one")
    _, lines = tried(tmp_path / "alone", {"two": needs_it}, Runs([base]))
    assert lines["two"]["verdict"] == "failed"
    assert "RunError: it broke" in lines["two"]["finding"]


def test_what_has_passed_is_not_tried_again_unless_it_is_named(tmp_path):
    counted = []

    def holds(trials):
        counted.append(1)
        return judged(True, "it holds", nothing=float("nan"))

    tried(tmp_path, {"one": holds}, Runs())
    tried(tmp_path, {"one": holds}, Runs())
    assert len(counted) == 1


def test_a_file_of_other_settings_is_refused(tmp_path):
    tried(tmp_path, {"one": lambda trials: judged(True, "it holds")}, Runs())
    other = dataclasses.replace(settings(tmp_path), batch_size=8)
    with pytest.raises(UsageError, match="--batch_size 32, now it is 8"):
        confirm_report.Report(other, "tensorflow", [], {})


def test_ctrl_c_while_a_run_is_being_started_ends_that_run(tmp_path, monkeypatch):
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    monkeypatch.setattr(confirm_process, "_COMMAND", ["sleep", "600"])
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            confirm_process.Process(str(tmp_path), [], os.environ, None, How()).wait("none")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, previous)
    assert started[0].returncode == -signal.SIGINT


def test_compilation_is_held_against_its_time_out(tmp_path):
    class Trials:
        def train(self, name, flags, how):
            return self.ran

    trials = Trials()
    trials.steps_per_epoch = 30
    for number, (seconds, verdict) in enumerate([(49.0, "passed"), (51.0, "failed"), (None, "failed")]):
        trials.ran = ran(tmp_path, f"run{number}", 0, first_line_seconds=seconds)
        assert confirm_lines.compiles_in_time(trials).verdict == verdict


def test_without_a_device_the_lines_of_one_are_named():
    (absent,) = backends.confirmed_elsewhere("tensorflow").values()
    assert {line.name for line in absent} >= {"loop", "overflow", "memory", "split"}
    assert isinstance(backends.host(Config().replace(backend="tensorflow")).confirmation(), Backing)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"data_dir": ""}, "--data_dir is missing"),
        ({"only": ("lop",)}, "--only lop: must be one of kernels, loop"),
        ({"run_flag": ("nodes=3",)}, "there is no flag --nodes"),
        ({}, "has 40 training images; 768 are needed"),
    ],
)
def test_what_cannot_work_is_said_before_anything_runs(more, message, tmp_path):
    records.write_noise(tmp_path / "data", train=40, validation=4)
    wrong = dataclasses.replace(settings(tmp_path), backend="ascend", **more)
    with pytest.raises(UsageError, match=message):
        confirm.run(wrong)


def test_a_part_of_the_data_is_enough(tmp_path):
    data = records.write_noise(tmp_path / "data", train=40, validation=8, shards=4)
    assert confirm_data.link_part(data, str(tmp_path / "part"), 12) == 20
    assert len([name for name in (tmp_path / "part").iterdir() if name.name.startswith("train")]) == 2
    assert not (tmp_path / "data" / ".densenet_index").exists()
