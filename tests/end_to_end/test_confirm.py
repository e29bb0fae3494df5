"""`confirm` over the stand-in for the adapter: whole, and line by line where the device is at fault."""

import json
import shutil
import signal
import subprocess
import sys

import pytest

from tests.support import commands, confirming, signals

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
    """See `confirming.furnish`."""
    return confirming.furnish(tmp_path_factory.mktemp("place"), ranks=2, train=100)


def interrupt(place, log_dir):
    """Starts confirm and presses ctrl-C at its second run; its exit code, and its file."""
    with confirming.started(place, log_dir, 1) as (arguments, environment):
        command = [sys.executable, "-m", "densenet_keras", *map(str, arguments)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=str(place),
            env=commands.environment(**environment), preexec_fn=signals.let_ctrl_c_through,
        )  # fmt: skip
        commands.wait_for(lambda: (log_dir / "runs" / "base" / "output.log").exists(), process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    return process.returncode, confirming.read(log_dir)


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
            made[ranks] = (*confirming.confirm(place, log_dir, ranks), log_dir)
        return made[ranks]

    return get


def test_what_was_found_before_ctrl_c_is_kept(interrupted):
    code, file, _ = interrupted
    assert code == 130
    assert confirming.verdicts(file) == {"kernels": "passed"}


def test_one_rank_confirms_all_that_it_can(confirmed):
    output, file, log_dir = confirmed(1)
    passing = {name for name, verdict in confirming.verdicts(file).items() if verdict == "passed"}
    assert set(file["lines"]) - passing == confirming.FOR_SEVERAL
    assert all(
        file["lines"][name]["finding"] == "needs --rank_size 2 or more" for name in confirming.FOR_SEVERAL
    )
    assert f"all of it is in {log_dir}/confirmation.json" in output


def test_two_ranks_confirm_everything(confirmed):
    _, file, _ = confirmed(2)
    assert set(confirming.verdicts(file).values()) == {"passed"}
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
    output, file = confirming.confirm(
        place, log_dir, ranks, "--only", ",".join(lines), code=1, SIMULATED_NPU_BREAK=faults
    )
    found = confirming.verdicts(file)
    assert {name for name, verdict in found.items() if verdict == "failed"} == set(lines), output
    others = set(found) - set(lines) - confirming.FOR_SEVERAL
    assert all(found[name] == "passed" for name in others)


def test_a_device_that_lacks_a_kernel_fails_its_line(confirmed, place, tmp_path):
    log_dir = tmp_path / "confirmation"
    shutil.copytree(str(confirmed(1)[2]), str(log_dir), symlinks=True)
    shutil.rmtree(str(log_dir / "runs" / "planned"))
    _, file = confirming.confirm(
        place, log_dir, 1, "--only", "kernels", code=1, ASCEND_OPP_PATH=str(place / "poor")
    )
    assert confirming.verdicts(file)["kernels"] == "failed"
    assert "Conv2D" in json.dumps(file["lines"]["kernels"])
