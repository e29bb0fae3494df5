"""Several real rank processes: they agree on everything, and they end together."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time

import numpy as np
import pytest

from tests.support import commands, records

TINY = ("--model", "densenet_tiny", "--num_classes", 10, "--intra_op_threads", 1, "--mode", "train")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return records.write_noise(tmp_path_factory.mktemp("data"), train=64, validation=8)


def test_eight_ranks_train_and_stop_cleanly(data_dir, tmp_path):
    output = commands.run(
        "train_keras.py",
        "--rank_size",
        8,
        *TINY,
        "--data_dir",
        data_dir,
        "--log_dir",
        tmp_path,
        "--batch_size",
        2,
        "--max_epochs",
        2,
        "--iterations_per_loop",
        2,
    )
    assert "8 ranks x batch 2" in output
    assert commands.metrics(tmp_path)[0][-1]["step"] == 8
    assert sorted(os.listdir(str(tmp_path / "rank_logs"))) == [f"rank_{rank}.log" for rank in range(8)]


def test_an_interrupted_run_continues_on_two_ranks_as_if_it_had_not_stopped(data_dir, tmp_path):
    """ctrl-C reaches the launcher alone; all ranks stop at one step and leave a checkpoint."""
    settings = (
        "--rank_size",
        2,
        *TINY,
        "--data_dir",
        data_dir,
        "--batch_size",
        4,
        "--iterations_per_loop",
        1,
        "--max_train_steps",
        300,
    )
    process = commands.start("train_keras.py", *settings, "--log_dir", tmp_path / "stopped")
    commands.wait_for(lambda: len(commands.metrics(tmp_path / "stopped")[0]) >= 3, process)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0].decode("utf-8", "replace")
    assert process.returncode == 130, output
    left = [n for n in os.listdir(str(tmp_path / "stopped")) if n.endswith(".index")]
    assert len(left) == 1, output
    assert 3 <= int(left[0][len("model.ckpt-") : -len(".index")]) < 300
    commands.run("train_keras.py", *settings, "--log_dir", tmp_path / "stopped")
    commands.run("train_keras.py", *settings, "--log_dir", tmp_path / "whole")
    commands.assert_same_variables(
        tmp_path / "stopped" / "model.ckpt-300", tmp_path / "whole" / "model.ckpt-300"
    )


@pytest.mark.parametrize("victim", [0, 2])
def test_killing_one_rank_ends_the_run_and_names_it(data_dir, tmp_path, victim):
    process = commands.start(
        "train_keras.py",
        "--rank_size",
        3,
        *TINY,
        "--data_dir",
        data_dir,
        "--log_dir",
        tmp_path,
        "--batch_size",
        4,
        "--iterations_per_loop",
        1,
        "--max_restarts",
        0,
        "--max_train_steps",
        100000,
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
        "train_keras.py",
        "--rank_size",
        2,
        *TINY,
        "--data_dir",
        data_dir,
        "--log_dir",
        tmp_path,
        "--batch_size",
        4,
        "--iterations_per_loop",
        1,
        "--max_train_steps",
        100000,
    )
    commands.wait_for(lambda: len(commands.metrics(tmp_path)[0]) >= 2, process)
    assert len(commands.ranks_of(process)) == 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 15.0
    while commands.ranks_of(process):
        assert time.monotonic() < deadline, "ranks outlive their launcher"
        time.sleep(0.1)


@contextlib.contextmanager
def two_network_namespaces():
    """Two hosts on one cable, as (command that runs another there, address); needs root."""
    names = [f"densenet{os.getpid()}{side}" for side in "ab"]
    addresses = ["10.213.77.1", "10.213.77.2"]

    def ip(*arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ends = [("name", "eth0", "netns", name) for name in names]
        ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for name, address in zip(names, addresses):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
            ip("netns", "exec", name, "true")
        yield [(("ip", "netns", "exec", name), address) for name, address in zip(names, addresses)]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL, check=False)


@pytest.fixture
def two_hosts():
    """Two network namespaces where this machine lets them be made, else two loopback addresses."""
    with contextlib.ExitStack() as stack:
        try:
            hosts = stack.enter_context(two_network_namespaces())
        except (OSError, subprocess.CalledProcessError):
            hosts = [((), "127.0.0.1"), ((), "127.0.0.2")]
        yield hosts


def test_ranks_that_tf_config_describes_find_each_other_on_two_hosts(two_hosts, data_dir, tmp_path):
    """TensorFlow's own convention for several hosts."""
    ports = []
    for prefix, host in two_hosts:
        port = 2222
        if not prefix:
            with socket.socket() as free:
                free.bind((host, 0))
                port = free.getsockname()[1]
        ports.append(f"{host}:{port}")
    processes = []
    try:
        for rank, (prefix, _) in enumerate(two_hosts):
            cluster = {"cluster": {"worker": ports}, "task": {"type": "worker", "index": rank}}
            processes.append(
                commands.start(
                    "train_keras.py",
                    *TINY,
                    "--data_dir",
                    data_dir,
                    "--log_dir",
                    tmp_path,
                    "--batch_size",
                    4,
                    "--max_epochs",
                    1,
                    prefix=prefix,
                    TF_CONFIG=json.dumps(cluster),
                )
            )
        outputs = [p.communicate(timeout=120)[0].decode("utf-8", "replace") for p in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "2 ranks x batch 4" in outputs[0]
    assert os.path.exists(str(tmp_path / "model.ckpt-8.index"))


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun on this machine")
def test_ranks_that_mpirun_started_find_each_other(data_dir, tmp_path):
    mpirun = ("mpirun", "-np", "2", "--allow-run-as-root", "--oversubscribe")
    process = commands.start(
        "train_keras.py",
        *TINY,
        "--data_dir",
        data_dir,
        "--log_dir",
        tmp_path,
        "--batch_size",
        4,
        "--max_epochs",
        1,
        prefix=mpirun,
    )
    try:
        output = process.communicate(timeout=120)[0].decode("utf-8", "replace")
    finally:
        process.terminate()  # mpirun then ends its ranks
        process.wait()
    assert process.returncode == 0, output
    assert "2 ranks x batch 4" in output
    assert os.path.exists(str(tmp_path / "model.ckpt-8.index"))


def test_ranks_that_see_different_checkpoints_refuse_to_evaluate(data_dir, tmp_path):
    """Two hosts whose folders of the same name are not one; otherwise they would wait for each other."""
    commands.run(
        "train_keras.py",
        *TINY,
        "--data_dir",
        data_dir,
        "--log_dir",
        tmp_path / "run",
        "--batch_size",
        8,
        "--max_train_steps",
        2,
        "--save_checkpoints_steps",
        1,
    )
    folders = []
    for rank, steps in enumerate(((1, 2), (2,))):
        folder = tmp_path / f"host{rank}" / "run"
        shutil.copytree(str(tmp_path / "run"), str(folder))
        for name in os.listdir(str(folder)):
            if name.startswith("model.ckpt-") and int(name.split("-")[1].split(".")[0]) not in steps:
                os.remove(str(folder / name))
        folders.append(folder)
    ports = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for rank, folder in enumerate(folders):
        cluster = {"cluster": {"worker": ports}, "task": {"type": "worker", "index": rank}}
        processes.append(
            commands.start(
                "evaluate.py",
                "--eval_dir",
                folder,
                "--data_dir",
                data_dir,
                "--log_dir",
                tmp_path / "log",
                "--batch_size",
                4,
                TF_CONFIG=json.dumps(cluster),
            )
        )
    outputs = [process.communicate(timeout=120)[0].decode("utf-8", "replace") for process in processes]
    assert [process.returncode for process in processes] == [1, 1], outputs
    assert all("other checkpoints" in output and "Traceback" not in output for output in outputs), outputs


def free_ports(count):
    """Ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_two_ranks_go_back_together_from_a_step_that_went_wrong(tmp_path):
    payloads = records.noise_payloads(32)
    payloads[17] = records.example(records.encode(np.full((24, 20, 3), 255, np.uint8)), 1)
    records.write_split(tmp_path / "data", "train", payloads, shards=1)
    run = (
        "train_keras.py", "--model", "densenet_tiny", "--num_classes", 10, "--image_size", 32,
        "--mode", "train", "--data_threads", 1, "--intra_op_threads", 1, "--batch_size", 2, "--rank_size", 2,
        "--save_checkpoints_steps", 2, "--max_train_steps", 8, "--data_dir", tmp_path / "data",
        "--callbacks", "tests.support.poison:create",
    )  # fmt: skip
    output = commands.run(*run, "--log_dir", tmp_path / "stop", code=1)
    words = (
        "at step 7: in its forward pass the output of layer images is the first that is not finite, on rank"
    )
    assert output.count(f"\nerror: loss is nan {words} 0") == 1
    output = commands.run(*run, "--log_dir", tmp_path / "whole", "--on_nonfinite", "rewind")
    assert f"{words} 0" in output
    assert f"{words.replace('7', '8')} 1" in output, "its next place is the other rank's"
    assert "going back to step 6, without the 2 steps of data" in output
