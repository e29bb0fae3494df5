"""`python -m densenet_keras check` as a user meets it: tables, findings, exit codes, --json."""

import json
import os
import subprocess
import sys

import pytest

from densenet_keras.commands import main
from tests.support import pictures
from tests.support import records as fake
from tests.support.commands import environment
from tests.support.paths import ROOT


def run(*arguments):
    """(exit code, stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, "-m", "densenet_keras", "check", *map(str, arguments)], cwd=ROOT, env=environment(),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def data_dir(tmp_path):
    for name, first in (("train", 0), ("validation", 100)):
        made = [fake.example(pictures.jpeg(first + number), 1 + number % 3) for number in range(9)]
        fake.write_split(tmp_path / "data", name, made)
    return str(tmp_path / "data")


def test_a_sound_data_set_is_exit_code_0(data_dir):
    code, out, error = run("--data_dir", data_dir)
    assert (code, error) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["train", "validation"]
    assert ["records", "9", "9"] in [line.split() for line in lines]
    assert ["JPEG", "colour", "9", "9"] in [line.split() for line in lines]
    assert lines[-1] == "0 errors, 0 warnings"


def test_findings_are_exit_code_1_and_stand_in_the_file(data_dir, tmp_path):
    made = [fake.example(b"junk", 1) for number in range(8)]
    path = fake.write_split(data_dir, "train", made, shards=1)[0]
    os.remove(os.path.join(data_dir, "train-00000-of-00002"))
    os.remove(os.path.join(data_dir, "train-00001-of-00002"))
    code, out, _ = run("--data_dir", data_dir, "--json", tmp_path / "found.json")
    assert code == 1
    assert "error: train-00000-of-00001, record 0 (byte 0): the picture is not a picture" in out
    assert "error: 3 more of the kind 'undecodable picture'" in out
    with open(str(tmp_path / "found.json")) as file:
        found = json.load(file)
    errors = [finding for finding in found["findings"] if finding["kind"] == "undecodable picture"]
    assert [(finding["file"], finding["record"]) for finding in errors] == [(path, n) for n in range(8)]
    assert found["errors"] == len(errors) + 1  # and the classes that nothing is left of


def test_of_many_classes_the_fewest_and_the_most_are_listed(tmp_path):
    labels = [1 + number // 2 for number in range(60)] + [7] * 5
    for name, first in (("train", 0), ("validation", 100)):
        made = [fake.example(pictures.jpeg(first + n), label) for n, label in enumerate(labels)]
        fake.write_split(tmp_path, name, made)
    code, out, _ = run("--data_dir", tmp_path)
    assert code == 0
    table = out[out.index("label, the fewest") :].splitlines()
    assert len(table) < 20
    assert ["7", "7", "7"] in [line.split() for line in table]


@pytest.mark.parametrize(("arguments", "words"), [
    ([], "--data_dir '': must be given"),
    (["--data_dir", "nothing"], "nothing cannot be read"),
    (["--data_dir", "nothing", "--json", "no/folder.json"], "--json no/folder.json: cannot be written"),
])  # fmt: skip
def test_a_command_that_cannot_work_is_refused(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main.run_command(["check", *arguments]) == 2
    assert words in capsys.readouterr().err
