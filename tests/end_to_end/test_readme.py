"""The commands of README and docs that need no large data and no NPU, run in order, in one folder.

What the others say is checked against the command line in tests/unit/test_documentation.py.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.support import commands, readme

COPIED = ("densenet_keras", "examples", "train_keras.py", "evaluate.py", "finetune.py")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """(folder, output) of a copy of the project in which every block to run has been run."""
    folder = tmp_path_factory.mktemp("readme")
    project = folder / "project"
    project.mkdir()
    for name in COPIED:
        source = os.path.join(readme.ROOT, name)
        copy = shutil.copytree if os.path.isdir(source) else shutil.copy
        copy(source, str(project / name))
    environment = commands.environment(PATH=f"{_python_on_path(folder)}{os.pathsep}{os.environ['PATH']}")
    output = ""
    for block in [block for path in readme.ENGLISH for block in readme.blocks(path)]:
        action, _, name = block.test.partition(" ")
        if action == "file":
            (project / name).write_text(block.code)
        elif action == "run":
            output += _run(block.code, str(project), environment)
    return project, output


def _python_on_path(folder):
    """A folder in which `python` is this interpreter, as in an activated environment."""
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return folder / "bin"


def _run(code, cwd, environment):
    done = subprocess.run(
        ["bash", "-e", "-c", code],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )
    output = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, f"{code}\nended with {done.returncode}:\n{output}"
    return output


def test_comments_before_blocks_are_understood():
    marks = [block.test for path in readme.ENGLISH for block in readme.blocks(path) if block.test]
    assert {mark.partition(" ")[0] for mark in marks} == {"run", "file"}
    comments = sum(readme.text(path).count("<!-- test:") for path in readme.ENGLISH)
    assert len(marks) == comments, "a comment without a block"


def test_the_small_network_learns_the_digits(ran):
    project, _ = ran
    table = json.loads((project / "table.json").read_text())
    assert table[-1]["epoch"] == 3.0
    assert table[-1]["top1"] > 85.0, "of the held-out digits; chance is 10"


def test_two_ranks_train(ran):
    project, output = ran
    assert "2 ranks x batch 16" in output
    assert sorted(os.listdir(str(project / "model_two" / "rank_logs"))) == ["rank_0.log", "rank_1.log"]


def test_fine_tuning_starts_from_the_result(ran):
    _, output = ran
    loaded = r"loaded \d+ variables from model_tiny/model\.ckpt-132; not loaded, random: linear/"
    assert re.search(loaded, output)


def test_the_network_has_the_size_that_is_stated(ran):
    _, output = ran
    for number in ("8,062,504", "7,978,856"):
        assert number in output
        assert all(number in readme.text(path) for path in ("docs/python.md", "docs/zh-CN/python.md"))


def test_callbacks_of_ones_own_run(ran):
    project, output = ran
    lines = (project / "epochs.csv").read_text().splitlines()
    assert len(lines) == 3, "a header and two epochs"
    wanted = {"loss", "total_loss", "learning_rate", "val_loss", "val_top1", "val_top5"}
    assert wanted <= set(lines[0].split(","))
    assert "trained to step 44" in output


@pytest.mark.parametrize("path", readme.FILES)
def test_every_file_that_the_runs_left_is_listed(ran, path):
    project, _ = ran
    listed = readme.listed_files(path)
    left = []
    for folder in [*project.glob("model_*"), project / "demo_digits"]:
        for place, _, names in os.walk(str(folder)):
            left += [os.path.relpath(os.path.join(place, name), str(folder)) for name in names]
    shards = re.compile(r"(train|validation)-\d{5}-of-\d{5}$")
    unlisted = sorted({n for n in left if not readme.is_listed(n, listed) and not shards.match(n)})
    assert unlisted == []
    assert len(left) > 30
