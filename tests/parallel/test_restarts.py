"""Ranks that are started again: real processes."""

import os
import signal
import subprocess
import sys

from tests.support import commands, records
from tests.support.paths import ROOT

SETTINGS = (
    "--rank_size", 2, "--model", "densenet_tiny", "--num_classes", 10, "--intra_op_threads", 1,
    "--mode", "train", "--batch_size", 4, "--iterations_per_loop", 1, "--save_checkpoints_steps", 20,
    "--max_train_steps", 160,
)  # fmt: skip


def steps_saved(folder):
    return [name for name in os.listdir(str(folder)) if name.endswith(".index")] if folder.exists() else []


def test_a_killed_rank_is_started_again_and_the_run_ends_as_if_nothing_had_happened(tmp_path):
    data_dir = records.write_noise(tmp_path / "data", train=64, validation=8)
    settings = (*SETTINGS, "--data_dir", data_dir, "--max_restarts", 2)
    process = commands.start("train_keras.py", *settings, "--log_dir", tmp_path / "killed")
    commands.wait_for(lambda: steps_saved(tmp_path / "killed"), process)
    os.kill(commands.ranks_of(process)[1], signal.SIGKILL)
    said = process.communicate(timeout=240)[0].decode("utf-8", "replace")
    assert process.returncode == 0, said
    assert "rank 1 failed first: killed by signal 9 (SIGKILL)" in said
    log = (tmp_path / "killed" / "densenet121.log").read_text()
    assert "restart 1 of 2 in 2 s, from the checkpoint of step " in log
    commands.run("train_keras.py", *settings, "--log_dir", tmp_path / "whole")
    commands.assert_same_variables(
        tmp_path / "killed" / "model.ckpt-160", tmp_path / "whole" / "model.ckpt-160"
    )
    figures = [
        [(line["step"], line["loss"]) for line in commands.metrics(tmp_path / name)[0]]
        for name in ("killed", "whole")
    ]
    assert figures[0] == figures[1]


LAUNCH = """
import sys
from densenet_keras.settings import config
from densenet_keras.launch import launcher
settings = config.Config().replace(log_dir=sys.argv[1], backend="tensorflow", max_restarts=5)
sys.exit(launcher.launch(settings, command=[sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]))
"""


def test_a_signal_in_the_pause_before_a_restart_ends_the_command(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    log = tmp_path / "densenet121.log"
    commands.wait_for(lambda: log.exists() and "restart 1 of 5" in log.read_text(), process)
    commands.wait_for(lambda: _handles(process.pid, signal.SIGTERM), process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 143, said
    assert said.count("failed") == 2, "once by the report, once by the restart; no second start"


def _handles(pid, signum):
    """Whether a process has a handler for a signal."""
    with open(f"/proc/{pid}/status") as file:
        caught = next(line for line in file if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signum - 1) & 1)
