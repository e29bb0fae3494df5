import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import List

import numpy
import pytest

from densenet_keras.commands import tensorflow_import
from densenet_keras.errors import EXIT_USAGE
from tests.support import commands, pictures
from tests.support.signals import let_ctrl_c_through

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


COMMANDS = [
    (TRAINING, "numpy"),
    (["evaluate.py"], "numpy"),
    (["finetune.py", "--restore", "nowhere", *TRAINING[1:]], "numpy"),
    (["-m", "densenet_keras", "check"], "tqdm"),
]


@pytest.mark.parametrize(("command", "package"), COMMANDS, ids=str)
def test_a_python_without_packages_is_told_the_first_in_two_lines(command: List[str], package: str) -> None:
    check_two_lines(bare(command), package)


@pytest.mark.parametrize(("more", "code"), [(["--help"], 0), (["--learning_rat", "0.1"], EXIT_USAGE)])
def test_help_and_refusals_need_no_package_at_all(more: List[str], code: int) -> None:
    done = bare(["train_keras.py", *more])
    assert done.returncode == code
    assert "has no package" not in done.stderr


def test_a_python_without_tensorflow_is_told_before_anything_is_written(tmp_path: Path) -> None:
    for package in Path(str(numpy.__file__)).parents[1].iterdir():
        if not package.name.startswith("tensorflow"):
            (tmp_path / package.name).symlink_to(package)
    check_two_lines(bare(TRAINING, str(tmp_path)), "tensorflow")
    assert not (ROOT / "never_made").exists()


_SCRIPT_WITH_CTRL_C = """
import os, runpy, signal, sys
class CtrlC:
    def find_spec(self, name, path, target=None):
        if name == "densenet_keras.commands.main":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, CtrlC())
sys.argv = [SCRIPT, "--help"]
runpy.run_path(SCRIPT, run_name="__main__")
"""


@pytest.mark.parametrize(
    "script", ["train_keras.py", "evaluate.py", "finetune.py", "densenet_keras/__main__.py"]
)
def test_ctrl_c_while_modules_are_loaded_shows_no_traceback(script):
    code = _SCRIPT_WITH_CTRL_C.replace("SCRIPT", repr(str(ROOT / script)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=str(ROOT),
        check=False,
        preexec_fn=let_ctrl_c_through,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGINT, b"")


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_names_that_stdout_cannot_encode_appear_as_escapes(tmp_path: Path, encoding: str) -> None:
    folder = pictures.class_folders(tmp_path / "pictures", classes=("cat", "ü"))
    for name in ("cat", "ü"):  # the same bytes under two labels, which prepare lists
        pictures.write(os.path.join(folder, name, os.fsdecode(b"\xff.jpg")), pictures.jpeg(1))
    out = commands.run(
        "-m", "densenet_keras", "prepare", folder, "--data_dir", tmp_path / "data", PYTHONIOENCODING=encoding
    )
    assert "2 classes (cat, {})".format({"ascii": r"\xfc", "utf-8": "ü"}[encoding]) in out
    assert r"\udcff.jpg" in out


def test_a_rank_trains_where_stdout_cannot_encode_its_folder(tmp_path: Path) -> None:
    out = commands.run(
        "train_keras.py", "--model", "densenet_tiny", "--synthetic_data", "--max_train_steps", 1, "--mode",
        "train", "--batch_size", 2, "--log_dir", tmp_path / "ü", PYTHONIOENCODING="ascii",
    )  # fmt: skip
    assert r"\xfc/run.json" in out


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help_all"]])
def test_output_that_nobody_takes_is_exit_code_1_or_that_of_sigpipe(arguments: List[str]) -> None:
    """With and without a buffer, which fails only when the command has ended."""
    for unbuffered in ("", "1"):
        reading, writing = os.pipe()
        os.close(reading)
        full = os.open("/dev/full", os.O_WRONLY)
        found = []
        for stdout in (writing, full):
            done = subprocess.run(
                [sys.executable, "-m", "densenet_keras", *arguments], cwd=str(ROOT), stdout=stdout,
                stderr=subprocess.PIPE, text=True, env=commands.environment(PYTHONUNBUFFERED=unbuffered),
            )  # fmt: skip
            os.close(stdout)
            found.append((done.returncode, done.stderr))
        assert found[0] == (128 + signal.SIGPIPE, "")
        assert found[1][0] == 1
        assert found[1][1].startswith("error: the output cannot be written: No space left on device; ")
        assert found[1][1].count("\n") == 1


def test_ctrl_c_that_a_library_drops_while_it_is_loaded_is_not_lost() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    reached = []

    def load() -> None:
        with tensorflow_import.ctrl_c_remembered():
            with contextlib.suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                reached.append("behind the signal")
            reached.append("behind the library")

    try:
        with pytest.raises(KeyboardInterrupt):
            load()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with tensorflow_import.ctrl_c_remembered():
            pass
    finally:
        signal.signal(signal.SIGINT, before)
    assert reached == ["behind the library"]
