"""Runs the project's commands as a user does: separate processes, real files."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np

from densenet_keras.training.callbacks.metrics import read as read_metrics
from tests.support.paths import ROOT

# Variables by which a scheduler would tell these processes that they are ranks.
_SCHEDULER = ("TF_CONFIG", "RANK_ID", "RANK_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")


def environment(**more):
    inherited = {name: value for name, value in os.environ.items() if name not in _SCHEDULER}
    return {**inherited, **more}


def run(script, *arguments, code=0, timeout_seconds=300, cwd=None, **more):
    """Runs `script` to its end; returns stdout and stderr as one text. Fails unless it exits with `code`.

    `script` is a file of the project, or "-m" for a module.
    """
    program = [script] if script == "-m" else [os.path.join(ROOT, script)]
    command = [sys.executable, *program, *map(str, arguments)]
    more.setdefault("PYTHONPATH", ROOT)
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout_seconds,
        cwd=cwd,
        env=environment(**more),
        check=False,
    )
    output = done.stdout.decode("utf-8", "replace")
    assert done.returncode == code, f"{script} exited with {done.returncode}, expected {code}:\n{output}"
    return output


def start(script, *arguments, prefix=(), **more):
    """Starts `script`, by way of the command `prefix`, in the background; its output is `process.stdout`."""
    command = [*prefix, sys.executable, os.path.join(ROOT, script), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(**more)
    )


def wait_for(condition, process, timeout_seconds=120):
    """Returns the first true value of `condition()`; fails if `process` ends or time runs out before."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        assert process.poll() is None, process.stdout.read().decode("utf-8", "replace")
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    raise AssertionError(f"not within {timeout_seconds} s: {condition}")


def metrics(log_dir):
    """(log lines, evaluation lines) of a run folder."""
    path = os.path.join(str(log_dir), "metrics.jsonl")
    lines = read_metrics(path) if os.path.exists(path) else []
    return [line for line in lines if "learning_rate" in line], [line for line in lines if "top1" in line]


def variables(checkpoint):
    """Name to array, of everything in a checkpoint."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(checkpoint))
    return {name: reader.get_tensor(name) for name in sorted(reader.get_variable_to_shape_map())}


def assert_same_variables(left, right):
    """Both checkpoints hold the same variables, bit for bit."""
    first, second = variables(left), variables(right)
    assert list(first) == list(second)
    different = [name for name in first if not np.array_equal(first[name], second[name])]
    assert not different, f"{len(different)} of {len(first)} variables differ, such as {different[:3]}"


def ranks_of(process):
    """Process ids of the ranks that a launcher has started, by rank."""
    found = {}
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                names = dict(item.partition(b"=")[::2] for item in file.read().split(b"\0"))
        except (OSError, ValueError):
            continue
        if names.get(b"DENSENET_KERAS_PARENT") == str(process.pid).encode():
            task = json.loads(names.get(b"TF_CONFIG", b'{"task": {"index": 0}}').decode())["task"]
            found[task["index"]] = int(entry)
    return found
