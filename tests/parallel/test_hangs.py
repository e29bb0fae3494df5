"""Ranks that stop, die or hang while others wait for them: real processes, without TensorFlow."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from densenet_keras.checkpoints import run_folder
from densenet_keras.launch import hangs, peers, rank_states, views
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology
from densenet_keras.watchdog import Watchdog
from tests.support import commands
from tests.support.paths import ROOT

LIMIT_SECONDS = 60  # to end a test that hangs; none measures time

# A rank as `commands.worker` makes one, whose work is a step and then one of these functions. Rank 0 waits.
RANK = """
import contextlib, os, signal, sys, threading, time
from densenet_keras.commands import worker
from densenet_keras.checkpoints import run_folder
from densenet_keras.launch import hangs, peers, rank_states, views
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology
from densenet_keras.watchdog import Watchdog

class Failed(Exception):
    pass

def run(config, rank):
    with rank.watchdog.phase("starting", 60.0):
        path = rank_states.path_of(config.run.log_dir, 1 - rank.topology.rank)
        while not os.path.exists(path):
            time.sleep(0.05)
        time.sleep(3)  # until the others have seen this one write
    rank.watchdog.at(17)
    if os.environ["DOES"] != "take_long":
        rank.watchdog.beat(0.01)
    time.sleep(1)  # until others can read that
    globals()[os.environ["DOES"] if rank.topology.rank else "wait"](rank)

def wait(rank):
    threading.Event().wait()

def stop(rank):
    os.kill(os.getpid(), signal.SIGSTOP)
    wait(rank)

def die(rank):
    os.kill(os.getpid(), signal.SIGKILL)

def fail(rank):
    raise Failed("no such layer")

def hold_the_interpreter(rank):
    import ctypes
    ctypes.PyDLL(None).sleep(60)

def take_long(rank):
    rank.watchdog.beat(40.0)
    rank.stop.let_finish()
    while not rank.stop.is_set:
        time.sleep(0.05)

def be_in_a_callback(rank):
    with rank.watchdog.unlimited():
        time.sleep(9)
    os._exit(2)

import types, unittest.mock
for name in ("tensorflow", "tensorflow.python", "tensorflow.python.util"):
    sys.modules[name] = unittest.mock.MagicMock()
sys.modules["densenet_keras.commands.ranks"] = types.SimpleNamespace(run=run)
worker.main()
"""

LAUNCH = """
import sys
from densenet_keras.settings import config
from densenet_keras.launch import launcher
settings = config.Config().replace(
    log_dir=sys.argv[1], rank_size=2, backend="tensorflow", step_timeout_seconds=5,
    max_restarts=0,
)
sys.exit(launcher.launch(settings, command=[sys.executable, "-c", sys.argv[2]]))
"""


# Most of their time is waiting, so all start at once.
LAUNCHED = ("stop", "hold_the_interpreter", "be_in_a_callback", "take_long")
ALONE = ("die", "stop", "fail")


def start(command, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", *command],
        env={**os.environ, "PYTHONPATH": ROOT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def start_ranks(folder, what):
    """Two ranks of TF_CONFIG, which no launcher looks after, of which the second does `what`."""
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in (first, second)]
    config = Config().replace(log_dir=str(folder), rank_size=2, backend="tensorflow", step_timeout_seconds=5)
    path = run_folder.write_configuration(config)
    tasks = [{"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}} for rank in (0, 1)]
    return [start([RANK, path], DOES=what, TF_CONFIG=json.dumps(task)) for task in tasks]


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """Launchers of two ranks, of which the second does what the key says, and pairs without a launcher."""
    folders = {name: tmp_path_factory.mktemp(name) for name in LAUNCHED}
    launchers = {name: start([LAUNCH, str(folders[name]), RANK], DOES=name) for name in LAUNCHED}
    pairs = {name: start_ranks(tmp_path_factory.mktemp(name), name) for name in ALONE}
    yield launchers, pairs, folders
    for process in itertools.chain(launchers.values(), *pairs.values()):
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def launched(started):
    """launched(what): exit code and words of a launcher whose second rank does `what`."""

    def finish(what):
        said = started[0][what].communicate(timeout=LIMIT_SECONDS)[0].decode()
        return started[0][what].returncode, said

    return finish


def test_a_run_of_long_steps_has_more_time_to_stop(started, launched):
    """Twice the longest step and half a minute, where others have one minute."""
    process, folder = started[0]["take_long"], started[2]["take_long"]
    commands.wait_for(lambda: _longest_step(folder) == 40.0, process)
    time.sleep(2 * hangs.POLL_SECONDS)  # until the launcher has read it, too
    process.send_signal(signal.SIGTERM)
    assert "for which they have 110 s" in launched("take_long")[1]


def _longest_step(folder):
    found = rank_states.read(str(folder), 1)
    return found.state.usual_seconds if found else 0.0


def test_a_stopped_rank_is_named_and_not_the_one_that_waits_for_it(launched):
    code, said = launched("stop")
    assert code == 1
    assert "rank 1 failed first: it made no progress" in said
    assert "stopped by a signal such as SIGSTOP while training, at step 17" in said
    assert "the Python stack of rank 1:" in said
    assert "in stop" in said
    assert "rank 0 waited for rank 1" in said


def test_a_rank_whose_interpreter_is_held_is_named(launched):
    code, said = launched("hold_the_interpreter")
    assert code == 1
    assert "rank 1 failed first: it made no progress" in said
    assert "in hold_the_interpreter" in said


def test_a_rank_is_waited_for_while_somebody_elses_code_runs_in_it(launched):
    """Nine seconds, where five are allowed for a step."""
    assert launched("be_in_a_callback")[0] == 2


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("die", "rank 1 is gone: its process"),
        ("stop", "this rank waits for rank 1 (process "),
        ("fail", "has ended: it failed: Failed: no such layer"),
    ],
)
def test_without_a_launcher_the_waiting_rank_names_the_other(started, what, said):
    first, _ = started[1][what]
    last_line = first.communicate(timeout=LIMIT_SECONDS)[0].decode().splitlines()[-1]
    assert first.returncode == 1
    assert said in last_line
    assert last_line.endswith("this rank gives up")


def test_a_rank_of_another_host_that_was_killed_is_found_by_its_port(tmp_path):
    """Its process cannot be seen from here; its host refuses connections to where it listened."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    watchdog = Watchdog(60.0, 60.0)
    me = rank_states.Announcer(str(tmp_path), 0, watchdog)
    topology = Topology(0, 2, 0, 1, ("127.0.0.1:1", address))
    others = peers.Peers(str(tmp_path), topology, me)
    others._views[1].stale_seconds = views.STALE_SECONDS
    silent = watchdog.state()._replace(silent_seconds=10.0)
    for _ in range(3):
        others.look(silent)
    assert not others.lost(), "it may not have started yet"
    silent = silent._replace(beats=1)
    others.look(silent)
    assert not others.lost(), "once may be an accident"
    others.look(silent)
    assert others.lost() == f"rank 1 is gone: nothing listens at {address} any more"
