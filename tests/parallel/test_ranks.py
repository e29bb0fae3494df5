"""Several real rank processes: they agree on everything, and they end together."""

import os
import signal
import subprocess
import time

import pytest

from tests.fakes import commands, records

TINY = ("--model", "densenet_tiny", "--num_classes", 10, "--intra_op_threads", 1, "--mode", "train")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return records.write_noise(tmp_path_factory.mktemp("data"), train=64, validation=8)


def test_eight_ranks_train_and_stop_cleanly(data_dir, tmp_path):
    output = commands.run(
        "train_keras.py", "--rank_size", 8, *TINY, "--data_dir", data_dir, "--log_dir", tmp_path,
        "--batch_size", 2, "--max_epochs", 2, "--iterations_per_loop", 2,
    )
    assert "8 ranks x batch 2" in output
    assert commands.metrics(tmp_path)[0][-1]["step"] == 8
    assert sorted(os.listdir(str(tmp_path / "rank_logs"))) == [f"rank_{rank}.log" for rank in range(8)]


def test_an_interrupted_run_continues_on_two_ranks_as_if_it_had_not_stopped(data_dir, tmp_path):
    """ctrl-C reaches the launcher alone; all ranks stop at one step and leave a checkpoint."""
    settings = (
        "--rank_size", 2, *TINY, "--data_dir", data_dir, "--batch_size", 4, "--iterations_per_loop", 1,
        "--max_train_steps", 300,
    )
    process = commands.start("train_keras.py", *settings, "--log_dir", tmp_path / "stopped")
    commands.wait_for(lambda: len(commands.metrics(tmp_path / "stopped")[0]) >= 3, process)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0].decode("utf-8", "replace")
    assert process.returncode == 130, output
    left = [n for n in os.listdir(str(tmp_path / "stopped")) if n.endswith(".index")]
    assert len(left) == 1, output
    assert 3 <= int(left[0][len("model.ckpt-"):-len(".index")]) < 300
    commands.run("train_keras.py", *settings, "--log_dir", tmp_path / "stopped")
    commands.run("train_keras.py", *settings, "--log_dir", tmp_path / "whole")
    commands.assert_same_variables(
        tmp_path / "stopped" / "model.ckpt-300", tmp_path / "whole" / "model.ckpt-300"
    )


@pytest.mark.parametrize("victim", [0, 2])
def test_killing_one_rank_ends_the_run_and_names_it(data_dir, tmp_path, victim):
    process = commands.start(
        "train_keras.py", "--rank_size", 3, *TINY, "--data_dir", data_dir, "--log_dir", tmp_path,
        "--batch_size", 4, "--iterations_per_loop", 1, "--max_train_steps", 100000,
    )
    commands.wait_for(lambda: len(commands.metrics(tmp_path)[0]) >= 3, process)
    ranks = commands.ranks_of(process)
    assert sorted(ranks) == [0, 1, 2]
    os.kill(ranks[victim], signal.SIGKILL)
    killed = time.monotonic()
    output = process.communicate(timeout=60)[0].decode("utf-8", "replace")
    assert time.monotonic() - killed < 15.0, "the limit users are promised"
    assert process.returncode == 1, output
    assert f"rank {victim} failed first" in output
    assert "SIGKILL" in output
    assert not commands.ranks_of(process), "no orphan"


def test_no_rank_survives_a_killed_launcher(data_dir, tmp_path):
    process = commands.start(
        "train_keras.py", "--rank_size", 2, *TINY, "--data_dir", data_dir, "--log_dir", tmp_path,
        "--batch_size", 4, "--iterations_per_loop", 1, "--max_train_steps", 100000,
    )
    commands.wait_for(lambda: len(commands.metrics(tmp_path)[0]) >= 2, process)
    assert len(commands.ranks_of(process)) == 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 15.0
    while commands.ranks_of(process):
        assert time.monotonic() < deadline, "ranks outlive their launcher"
        time.sleep(0.1)


def test_ranks_that_tf_config_describes_find_each_other_on_two_addresses(data_dir, tmp_path):
    """TensorFlow's own convention for several hosts, here on two loopback addresses."""
    import json
    import socket

    ports = []
    for host in ("127.0.0.1", "127.0.0.2"):
        with socket.socket() as free:
            free.bind((host, 0))
            ports.append(f"{host}:{free.getsockname()[1]}")
    processes = []
    for rank in range(2):
        cluster = {"cluster": {"worker": ports}, "task": {"type": "worker", "index": rank}}
        processes.append(
            commands.start(
                "train_keras.py", *TINY, "--data_dir", data_dir, "--log_dir", tmp_path, "--batch_size", 4,
                "--max_epochs", 1, TF_CONFIG=json.dumps(cluster),
            )
        )
    outputs = []
    for process in processes:
        try:
            outputs.append(process.communicate(timeout=120)[0].decode("utf-8", "replace"))
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "2 ranks x batch 4" in outputs[0]
    assert os.path.exists(str(tmp_path / "model.ckpt-8.index"))
