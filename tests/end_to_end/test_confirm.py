"""`confirm` over the stand-in for the adapter: whole, and line by line where the device is at fault."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from densenet_keras.backends.ascend import graph_check
from densenet_keras.launch.launcher import reserved_ports
from tests.support import commands, records
from tests.support.paths import ASCEND, ROOT

FOR_SEVERAL = {"ranks", "split", "statistics"}  # lines that one rank cannot confirm
OPERATIONS = os.path.join("framework", "built-in", "tensorflow", "npu_supported_ops.json")

# What is at fault, the runs that must see it, and the lines that must say so. Faults that do not disturb
# each other share a start.
ALONE = [
    ("repeat,memory,devices,folders,kind", ["base"], ["steps", "memory", "devices", "folders", "npu"]),
    ("loop", ["base"], ["loop"]),
    ("single_steps", ["base"], ["halves"]),
    ("rates", ["base"], ["rates"]),
    ("saved", ["base", "evaluated_on_cpu"], ["checkpoints"]),
    (
        "restored,evaluation_overflow",
        ["read_back", "stopped", "continued", "scaled"],
        ["checkpoints", "stop", "evaluation_overflow"],
    ),
    (
        "evaluation,overflow,out_of_memory",
        ["evaluated", "overflowing", "speed_3"],
        ["evaluation", "overflow", "speed"],
    ),
]
TOGETHER = [("drift,split", ["base", "split", "statistics_step"], ["ranks", "split", "statistics"])]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """See `furnish`."""
    return furnish(tmp_path_factory.mktemp("place"), ranks=2, train=100)


def furnish(folder, ranks, train):
    """Data, a rank table, the device's list of operations, one that lacks some, and the folder of chips."""
    records.write_noise(folder / "data", train=train, validation=21)
    devices = [
        {"device_id": str(rank), "device_ip": f"192.168.1.{10 + rank}", "rank_id": str(rank)}
        for rank in range(ranks)
    ]
    servers = [{"server_id": "127.0.0.1", "device": devices}]
    (folder / "table.json").write_text(json.dumps(
        {"status": "completed", "version": "1.0", "server_count": "1", "server_list": servers}
    ))  # fmt: skip
    for name, lacking in (("opp", ()), ("poor", ("Conv2D",))):
        path = folder / name / OPERATIONS
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({op: {} for op in graph_check._SUPPORTED if op not in lacking}))
    (folder / "chips").mkdir()
    return folder


@contextlib.contextmanager
def started(place, log_dir, ranks):
    """Arguments and environment of confirm on simulated devices."""
    environment = {
        "PYTHONPATH": os.pathsep.join([ROOT, ASCEND]),
        "PATH": os.pathsep.join([os.path.join(ASCEND, "bin"), os.environ["PATH"]]),
        "ASCEND_OPP_PATH": str(place / "opp"),
        "SIMULATED_NPU_CHIPS": str(place / "chips"),
    }
    arguments = [
        "confirm", "--backend", "ascend", "--rank_size", ranks, "--log_dir", log_dir,
        "--data_dir", place / "data", "--model", "densenet_tiny", "--batch_size", 2, "--batch_sizes", 3,
        "--speed_steps", 10, "--run_flag", "intra_op_threads=1",
    ]  # fmt: skip
    with reserved_ports(ranks if ranks > 1 else 0) as ports:
        if ranks > 1:
            environment["SIMULATED_NPU_ADDRESSES"] = ",".join(f"127.0.0.1:{port}" for port in ports)
            environment["RANK_TABLE_FILE"] = str(place / "table.json")
        yield arguments, environment


def read(log_dir):
    return json.loads((log_dir / "confirmation.json").read_text())


def confirm(place, log_dir, ranks, *more, code=0, timeout_seconds=580, **environment):
    """What confirm prints, and its file."""
    with started(place, log_dir, ranks) as (arguments, usual):
        usual.update(environment)
        output = commands.run(
            "-m", "densenet_keras", *arguments, *more, code=code, timeout_seconds=timeout_seconds,
            cwd=str(place), **usual
        )  # fmt: skip
    return output, read(log_dir)


def interrupt(place, log_dir):
    """Starts confirm and presses ctrl-C at its second run; its exit code, and its file."""
    with started(place, log_dir, 1) as (arguments, environment):
        command = [sys.executable, "-m", "densenet_keras", *map(str, arguments)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=str(place),
            env=commands.environment(**environment),
        )  # fmt: skip
        commands.wait_for(lambda: (log_dir / "runs" / "base" / "output.log").exists(), process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    return process.returncode, read(log_dir)


@pytest.fixture(scope="module")
def interrupted(place, tmp_path_factory):
    """Exit code, file and folder of a start that was interrupted."""
    log_dir = tmp_path_factory.mktemp("confirmed")
    return (*interrupt(place, log_dir), log_dir)


@pytest.fixture(scope="module")
def confirmed(place, interrupted, tmp_path_factory):
    """confirmed(ranks): output, file and folder of a device without fault; made once.

    One rank goes on with what was interrupted.
    """
    made = {}

    def get(ranks):
        if ranks not in made:
            log_dir = interrupted[2] if ranks == 1 else tmp_path_factory.mktemp(f"confirmed_{ranks}")
            made[ranks] = (*confirm(place, log_dir, ranks), log_dir)
        return made[ranks]

    return get


def verdicts(file):
    return {name: line["verdict"] for name, line in file["lines"].items()}


def test_what_was_found_before_ctrl_c_is_kept(interrupted):
    code, file, _ = interrupted
    assert code == 130
    assert verdicts(file) == {"kernels": "passed"}


def test_one_rank_confirms_all_that_it_can(confirmed):
    output, file, log_dir = confirmed(1)
    passing = {name for name, verdict in verdicts(file).items() if verdict == "passed"}
    assert set(file["lines"]) - passing == FOR_SEVERAL
    assert all(file["lines"][name]["finding"] == "needs --rank_size 2 or more" for name in FOR_SEVERAL)
    assert f"all of it is in {log_dir}/confirmation.json" in output


def test_two_ranks_confirm_everything(confirmed):
    _, file, _ = confirmed(2)
    assert set(verdicts(file).values()) == {"passed"}
    assert file["lines"]["devices"]["evidence"]["used_mb"]["1"] == 600
    assert len(file["lines"]["ranks"]["evidence"]["crc32"]) == 2


def test_the_file_says_what_was_run_where_and_with_what(confirmed):
    _, file, _ = confirmed(1)
    assert file["machine"]["tensorflow"] == "1.15.0"
    assert "910A" in file["machine"]["npu-smi"]
    assert file["runs"]["base"]["command"].startswith("python -m densenet_keras train ")
    assert [line["step"] for line in file["runs"]["base"]["metrics"]][-1] == 23


@pytest.mark.parametrize(("faults", "runs", "lines"), ALONE + TOGETHER, ids=lambda value: str(value)[:24])
def test_a_device_at_fault_fails_its_line(faults, runs, lines, confirmed, place, tmp_path):
    ranks = 2 if (faults, runs, lines) in TOGETHER else 1
    log_dir = tmp_path / "confirmation"
    shutil.copytree(str(confirmed(ranks)[2]), str(log_dir), symlinks=True)
    for name in runs:
        shutil.rmtree(str(log_dir / "runs" / name))
    output, file = confirm(
        place, log_dir, ranks, "--only", ",".join(lines), code=1, SIMULATED_NPU_BREAK=faults
    )
    found = verdicts(file)
    assert {name for name, verdict in found.items() if verdict == "failed"} == set(lines), output
    others = set(found) - set(lines) - FOR_SEVERAL
    assert all(found[name] == "passed" for name in others)


def test_a_device_that_lacks_a_kernel_fails_its_line(confirmed, place, tmp_path):
    log_dir = tmp_path / "confirmation"
    shutil.copytree(str(confirmed(1)[2]), str(log_dir), symlinks=True)
    shutil.rmtree(str(log_dir / "runs" / "planned"))
    _, file = confirm(place, log_dir, 1, "--only", "kernels", code=1, ASCEND_OPP_PATH=str(place / "poor"))
    assert verdicts(file)["kernels"] == "failed"
    assert "Conv2D" in json.dumps(file["lines"]["kernels"])
