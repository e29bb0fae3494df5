"""What reaches the terminal: the order of stdout and stderr, and streams that are closed."""

import subprocess
import sys

import pytest

from densenet_keras.launch import launcher
from densenet_keras.settings.config import Config
from tests.support.paths import ROOT

LINES = 200

# Writes lines in turn to stdout and stderr, as log lines and a progress bar come.
RANK = f"""
import sys
for number in range({LINES}):
    print(number, file=(sys.stdout, sys.stderr)[number % 2], flush=True)
"""
LAUNCH = """
import sys
from densenet_keras.settings import config
from densenet_keras.launch import launcher

settings = config.Config().replace(log_dir=sys.argv[1], backend="tensorflow")
sys.exit(launcher.launch(settings, command=[sys.executable, "-c", sys.argv[2]]))
"""


def launch(log_dir, **streams):
    return subprocess.run(
        [sys.executable, "-c", LAUNCH, str(log_dir), RANK], cwd=ROOT, timeout=60, check=True, **streams
    )


def numbers(data):
    return [int(line) for line in data.split()]


def test_streams_that_go_to_one_place_keep_their_order(tmp_path):
    done = launch(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert numbers(done.stdout) == list(range(LINES))
    with open(str(tmp_path / "rank_logs" / "rank_0.log"), "rb") as log:
        assert numbers(log.read().split(b"\n", 1)[1]) == list(range(LINES))


def test_streams_that_go_to_two_places_stay_apart(tmp_path):
    done = launch(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert numbers(done.stdout) == list(range(0, LINES, 2))
    assert numbers(done.stderr) == list(range(1, LINES, 2))


def test_ranks_learn_the_size_of_the_terminal(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "77")
    monkeypatch.setenv("LINES", "33")
    environment = launcher._start(Config(), {}).environment
    assert (environment["COLUMNS"], environment["LINES"]) == ("77", "33"), "the bar needs both"


@pytest.mark.parametrize("closed", [(0, 1, 2), (2,), (1,)])
def test_a_command_whose_streams_are_closed_works(tmp_path, closed):
    """As cron jobs and some supervisors start their programs."""
    opening = "from densenet_keras.commands import main\nmain._open_closed_streams()\n"
    script = LAUNCH.replace("settings =", opening + "settings =")
    redirections = " ".join(f"{number}>&-" for number in closed)
    command = ["sh", "-c", f'exec "$0" -c "$@" {redirections}', sys.executable, script, str(tmp_path), RANK]
    assert subprocess.run(command, cwd=ROOT, timeout=60, check=False).returncode == 0
    with open(str(tmp_path / "rank_logs" / "rank_0.log"), "rb") as log:
        assert sorted(numbers(log.read().split(b"\n", 1)[1])) == list(range(LINES))
