"""How a rank process ends: what its work raises or which signal comes decides the exit code."""

import os
import signal
import subprocess
import sys
import time

import pytest

from densenet_keras.checkpoints import run_folder
from densenet_keras.settings.config import Config
from tests.support.paths import ROOT

LIMIT_SECONDS = 60  # to end a test that hangs; none measures time

# A worker whose work is `job`; TensorFlow plays no part.
WORKER = """
import atexit, os, signal, sys, threading, types, unittest.mock
from densenet_keras.commands import worker
from densenet_keras.errors import RunError, UsageError

atexit.register(print, "at exit", flush=True)

def wait_for_signal(stop):
    stop.let_finish()
    print("ready", flush=True)
    while not stop.is_set:
        threading.Event().wait(0.01)
    print("asked", flush=True)

def run(config, rank):
    stop, watchdog, topology = rank.stop, rank.watchdog, rank.topology
    {job}

for name in ("tensorflow", "tensorflow.python", "tensorflow.python.util"):
    sys.modules[name] = unittest.mock.MagicMock()
sys.modules["densenet_keras.commands.ranks"] = types.SimpleNamespace(run=run)
worker.main()
"""
ENDLESS = "print('ready', flush=True); threading.Event().wait()"


@pytest.fixture
def start(tmp_path):
    """Starts a worker with its work given as a line of Python; none is left afterwards."""
    started = []

    def start_one(job, environment=None, **settings):
        config = Config().replace(log_dir=str(tmp_path), backend="tensorflow", **settings)
        path = run_folder.write_configuration(config)
        base = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER.replace("{job}", job), path],
            env={**base, "PYTHONPATH": ROOT, **(environment or {})},
            cwd=str(tmp_path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def finish(process):
    """Exit code, stdout and stderr."""
    out, err = process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode, out.decode(), err.decode()


def ready(process):
    assert process.stdout.readline() == b"ready\n"


@pytest.mark.parametrize(
    ("job", "code", "said"),
    [
        ("pass", 0, ""),
        ("raise UsageError('--lr -1: must be positive')", 2, "error: --lr -1: must be positive\n"),
        ("raise RunError('loss is NaN')", 1, "error: loss is NaN\n"),
        ("raise ValueError('broken')", 1, "ValueError: broken\n"),
        ("sys.exit(3)", 3, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('a word')", 1, "SystemExit: a word\n"),
    ],
)
def test_exit_code_and_message(start, job, code, said):
    result, _, err = finish(start(job))
    assert result == code
    assert err.endswith(said)
    assert ("Traceback" in err) == (said.startswith(("ValueError", "SystemExit")))


def test_functions_registered_for_the_exit_run_unless_it_failed(start):
    assert finish(start("pass"))[1] == "at exit\n"
    assert finish(start("raise RunError('x')"))[1] == ""


def test_threads_that_hang_do_not_keep_the_process(start):
    job = "threading.Thread(target=threading.Event().wait).start()"
    assert finish(start(job))[0] == 0


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_is_left_to_the_work(start, signum, code):
    process = start("wait_for_signal(stop)")
    ready(process)
    process.send_signal(signum)
    result, out, err = finish(process)
    assert result == code
    assert out.startswith("asked\n")
    assert "stopping" in err


def test_second_signal_ends_work_that_does_not_listen(start):
    process = start("stop.let_finish(); " + ENDLESS)
    ready(process)
    process.send_signal(signal.SIGINT)
    assert b"stopping" in process.stderr.readline()
    while process.poll() is None:  # at first they count as one request
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert finish(process)[0] == 130


WAIT_FOR_MORE = "wait_for_signal(stop); print(sys.stdin.readline().strip(), flush=True)"


@pytest.mark.parametrize("repeated", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_same_request_twice_is_one_request(start, repeated):
    """As `timeout` and systemd make it, which signal every process they know of."""
    process = start(WAIT_FOR_MORE)
    ready(process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(repeated)
    assert process.stdout.readline() == b"asked\n"
    process.stdin.write(b"saved\n")
    result, out, _ = finish(process)
    assert out.startswith("saved\n")
    # Of two signals that wait for the interpreter it handles the lower number first.
    assert result == 143 or (result, repeated) == (130, signal.SIGINT)


def test_a_rank_under_a_launcher_ignores_every_repetition(start, tmp_path):
    """The launcher decides when to kill; here it is the test."""
    process = start(WAIT_FOR_MORE, {"DENSENET_KERAS_PARENT": "x"})
    ready(process)
    for _ in range(30):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    process.stdin.write(b"saved\n")
    result, out, _ = finish(process)
    assert (result, out.split("\n")[:2]) == (143, ["asked", "saved"])


def test_hangup_stops_as_sigterm_does_and_not_under_nohup(start):
    def started(hangup):
        previous = signal.signal(signal.SIGHUP, hangup)  # the tests themselves may run under nohup
        try:
            process = start("wait_for_signal(stop)")
        finally:
            signal.signal(signal.SIGHUP, previous)
        ready(process)
        process.send_signal(signal.SIGHUP)
        return process

    assert finish(started(signal.SIG_DFL))[0] == 143
    process = started(signal.SIG_IGN)
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_work_with_nothing_to_save_yet_ends_at_the_first_signal(start, command):
    process = start(ENDLESS, command=command)
    ready(process)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143


def test_signal_during_the_start_is_not_lost(start):
    """The launcher starts ranks with both signals blocked, here the test does."""
    blocked = [signal.SIGINT, signal.SIGTERM]
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        process = start("wait_for_signal(stop)")
        process.send_signal(signal.SIGINT)  # before the interpreter itself is up
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    assert finish(process)[0] == 130


def test_place_comes_from_the_environment(start):
    job = "print(config.device.rank_size, topology.rank, topology.size, topology.addresses)"
    cluster = '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}'
    assert finish(start(job, {"TF_CONFIG": cluster}))[1].startswith("2 1 2 ('a:1', 'b:2')\n")


def test_ranks_of_a_scheduler_meet_in_the_run_folder(start):
    job = "print(topology.rank, *topology.addresses)"
    ranks = [start(job, {"RANK_ID": str(rank), "RANK_SIZE": "3"}) for rank in (2, 0, 1)]
    places = [finish(rank)[1].split("\n")[0].split() for rank in ranks]
    assert [place[0] for place in places] == ["2", "0", "1"]
    assert places[0][1:] == places[1][1:] == places[2][1:]
    assert len(set(places[0][1:])) == 3


def test_failure_of_a_rank_without_launcher_is_left_in_its_log(start, tmp_path):
    process = start("raise RunError('loss is NaN')", {"RANK_ID": "0", "RANK_SIZE": "1"})
    assert finish(process)[0] == 1
    assert (tmp_path / "rank_logs" / "rank_0.log").read_text() == "error: loss is NaN\n"


def test_missing_configuration_is_a_usage_error():
    command = [sys.executable, "-m", "densenet_keras.commands.worker", "/nonexistent/run.json"]
    result = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, timeout=LIMIT_SECONDS)
    assert result.returncode == 2
    assert b"/nonexistent/run.json" in result.stderr


def test_orphan_ends_at_once(start):
    """Its launcher was gone before it could look."""
    process = start(ENDLESS, {"DENSENET_KERAS_PARENT": "1"})
    assert finish(process)[0] == 1
