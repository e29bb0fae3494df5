"""Completion as bash does it: the script is read by a real one."""

import subprocess

import pytest

from densenet_keras.commands import completion, main
from densenet_keras.settings import programs


@pytest.fixture(scope="module")
def script():
    return completion.script("bash")


def completed(script, *words):
    """What the tab key offers behind `words`, the last of them being typed."""
    array = " ".join(f"'{word}'" for word in words)
    asked = f"{script}\nCOMP_WORDS=({array}); COMP_CWORD={len(words) - 1}; _densenet_keras\n"
    done = subprocess.run(
        ["bash", "--norc", "-c", asked + 'printf "%s\\n" "${COMPREPLY[@]}"'],
        stdout=subprocess.PIPE, text=True, timeout=30, check=True,
    )  # fmt: skip
    return done.stdout.split()


def test_commands(script):
    assert completed(script, "densenet-keras", "") == [*programs.SCRIPTS, *main.tools()]
    assert "train" in completed(script, "densenet-keras", "tr")


def test_flags_are_those_of_the_command(script):
    assert completed(script, "densenet-keras", "train", "--batch") == ["--batch_size"]
    assert completed(script, "./train_keras.py", "--batch") == ["--batch_size"]
    assert completed(script, "/some/evaluate.py", "--eval_d") == ["--eval_dir"]
    assert completed(script, "densenet-keras", "check", "--lr") == []


@pytest.mark.parametrize("words", [("--backend", "a"), ("--backend", "=", "a")])
def test_values_where_there_is_a_list_of_them(script, words):
    assert completed(script, "densenet-keras", "train", *words) == ["auto", "ascend"]


def test_switches_shells_and_files(script):
    assert completed(script, "train_keras.py", "--dry_run", "") == ["true", "false"]
    assert completed(script, "densenet-keras", "completion", "z") == ["zsh"]
    assert completed(script, "train_keras.py", "--data_dir", "da") == [], "left to the shell: files"


def test_zsh_is_told_to_run_what_bash_runs(script, capsys):
    assert main.run_command(["completion", "zsh"]) == 0
    first, _, rest = capsys.readouterr().out.partition("\n")
    assert "bashcompinit" in first
    assert rest.rstrip() == script
