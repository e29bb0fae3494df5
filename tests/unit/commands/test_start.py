import os
import subprocess
import sys
from pathlib import Path
from typing import List

import numpy
import pytest

from densenet_keras.errors import EXIT_USAGE

ROOT = Path(__file__).parents[3]
TRAINING = ["train_keras.py", "--synthetic_data", "true", "--log_dir", "never_made"]


def bare(command: List[str], search_path: str = "") -> "subprocess.CompletedProcess[str]":
    """`command`, run by this Python without its installed packages."""
    return subprocess.run(
        [sys.executable, "-S", *command], cwd=str(ROOT), text=True, capture_output=True,
        env={"PYTHONPATH": search_path, "PATH": os.environ["PATH"]},
    )  # fmt: skip


def check_two_lines(done: "subprocess.CompletedProcess[str]", package: str) -> None:
    assert done.returncode == EXIT_USAGE
    what, remedy = done.stderr.splitlines()
    assert what.startswith("error: ")
    assert what.endswith(f"has no package {package}")
    assert all(way in remedy for way in ("make setup", "pip install .[cpu]", "Ascend"))


COMMANDS = [["train_keras.py"], ["evaluate.py"], ["finetune.py"], ["-m", "densenet_keras", "check"]]


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_python_without_numpy_is_told_in_two_lines(command: List[str]) -> None:
    check_two_lines(bare(command), "numpy")


def test_a_python_without_tensorflow_is_told_before_anything_is_written(tmp_path: Path) -> None:
    for package in Path(str(numpy.__file__)).parents[1].iterdir():
        if not package.name.startswith("tensorflow"):
            (tmp_path / package.name).symlink_to(package)
    check_two_lines(bare(TRAINING, str(tmp_path)), "tensorflow")
    assert not (ROOT / "never_made").exists()
