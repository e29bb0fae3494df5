"""Launcher and ranks as real processes; the ranks are small scripts that the test steers by a socket.

The other end of a rank's socket closes when its process is gone, so nothing here waits by the clock.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from densenet_keras.errors import EXIT_HUNG
from densenet_keras.launch import processes, rank_states
from densenet_keras.launch.rank_states import RankState
from densenet_keras.settings import config as configuration
from densenet_keras.stop import SAME_REQUEST_SECONDS
from densenet_keras.watchdog import Watchdog
from tests.support.paths import ROOT

LIMIT_SECONDS = 60  # to end a test that hangs; none measures time

RANK = """
import json, os, signal, socket, sys
from densenet_keras.watchdog import watch_parent

# Else a signal to a rank that is not up yet would be lost.
assert {signal.SIGINT, signal.SIGTERM} <= signal.pthread_sigmask(signal.SIG_BLOCK, [])
watch_parent()
rank = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]["index"]
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
stubborn = False

def handle(signum, frame):
    link.sendall(b"signal %d\\n" % signum)
    if not stubborn:
        os._exit(128 + signum)

for signum in (signal.SIGINT, signal.SIGTERM):
    signal.signal(signum, handle)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM])
link.sendall(b"rank %d %d\\n" % (rank, os.getpid()))
for line in link.makefile(newline="\\n"):
    order, _, rest = line.strip().partition(" ")
    if order == "exit":
        sys.exit(int(rest))
    elif order == "print":
        print(rest, flush=True)
    elif order == "complain":
        sys.stderr.write(rest + "\\n")
    elif order == "stubborn":
        stubborn = True
    elif order == "fork" and os.fork() == 0:
        signal.alarm(60)  # should the launcher leave it
        signal.pause()
    link.sendall(b"done\\n")
"""

LAUNCH = """
import signal, sys
from densenet_keras.settings import config
from densenet_keras.launch import launcher

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
log_dir, size, grace_seconds, rank_script, address = sys.argv[1:]
settings = config.Config().replace(
    log_dir=log_dir, rank_size=int(size), backend="tensorflow", max_restarts=0
)
command = [sys.executable, rank_script, address]
sys.exit(launcher.launch(settings, command=command, grace_seconds=float(grace_seconds)))
"""


class Rank:
    """The test's end of one rank."""

    def __init__(self, link):
        self._link = link
        self._lines = link.makefile()
        _, self.rank, self.pid = map(int, self.read().replace("rank", "0").split())

    def read(self):
        """The next line the rank sends; empty once its process is gone."""
        return self._lines.readline().strip()

    def order(self, text):
        self._link.sendall(f"{text}\n".encode())
        assert self.read() == "done"

    def exit(self, code):
        self._link.sendall(f"exit {code}\n".encode())
        assert self.read() == ""

    def is_gone(self):
        return self.read() == ""

    def wait_until_gone(self):
        while self.read():
            pass


class Launched:
    """A launcher with connected ranks."""

    def __init__(self, folder, size, grace_seconds):
        self.log_dir = str(folder / "run")
        address = str(folder / "socket")
        script = folder / "rank.py"
        script.write_text(RANK)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(address)
            server.listen(size)
            server.settimeout(LIMIT_SECONDS)
            command = [sys.executable, "-c", LAUNCH, self.log_dir, str(size), str(grace_seconds)]
            self.process = subprocess.Popen(
                [*command, str(script), address],
                cwd=str(folder),
                env={**os.environ, "PYTHONPATH": ROOT},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            links = [server.accept()[0] for _ in range(size)]
        for link in links:
            link.settimeout(LIMIT_SECONDS)
        self.ranks = sorted((Rank(link) for link in links), key=lambda rank: rank.rank)

    def finish(self):
        """Exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=LIMIT_SECONDS)
        return self.process.returncode, out.decode(), err.decode()

    def log(self, rank):
        with open(os.path.join(self.log_dir, "rank_logs", f"rank_{rank}.log")) as file:
            return file.read()


@pytest.fixture
def start(tmp_path):
    """Starts a launcher; whatever happens, nothing of it is left afterwards."""
    started = []

    def start_one(size, grace_seconds=100 * LIMIT_SECONDS):
        started.append(Launched(tmp_path, size, grace_seconds))
        return started[-1]

    yield start_one
    for launched in started:
        for pid in [launched.process.pid, *(rank.pid for rank in launched.ranks)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        launched.process.wait()


def test_ranks_may_end_one_after_the_other(start):
    launched = start(3)
    assert [rank.rank for rank in launched.ranks] == [0, 1, 2]
    for rank in (1, 0, 2):
        launched.ranks[rank].exit(0)
    assert launched.finish()[0] == 0


def test_output_goes_to_logs_and_that_of_rank_zero_to_the_console_too(start):
    launched = start(2)
    launched.ranks[0].order("print loss 1.5")
    launched.ranks[0].order("complain bar 1\r bar 2")
    launched.ranks[1].order("print not for the console")
    launched.ranks[1].order("complain nor this")
    for rank in launched.ranks:
        rank.exit(0)
    code, out, err = launched.finish()
    assert code == 0
    assert out == "loss 1.5\n"
    assert "bar 1\r bar 2\n" in err
    assert "loss 1.5\n" in launched.log(0)
    assert "bar 1" not in launched.log(0)
    assert " bar 2\n" in launched.log(0)
    assert launched.log(1).endswith("not for the console\nnor this\n")
    assert "this" not in out + err.replace("this rank", "")


def test_configuration_lies_in_the_run_folder(start):
    launched = start(2)
    stored = configuration.load(os.path.join(launched.log_dir, "run.json"))
    assert stored.device.rank_size == 2
    for rank in launched.ranks:
        rank.exit(0)
    launched.finish()


def test_killed_rank_ends_the_run_and_is_named(start):
    launched = start(3)
    launched.ranks[2].order("print the last that rank 2 said")
    os.kill(launched.ranks[2].pid, signal.SIGKILL)
    code, _, err = launched.finish()
    assert code == 1
    assert "rank 2 failed first: killed by signal 9 (SIGKILL)" in err
    assert "  | the last that rank 2 said" in err
    assert os.path.join(launched.log_dir, "rank_logs", "rank_2.log") in err
    assert launched.ranks[0].read() == f"signal {signal.SIGTERM:d}"
    assert launched.ranks[0].is_gone()


def test_the_first_failure_is_reported_not_what_it_caused(start):
    launched = start(3)
    launched.ranks[0].order("stubborn")
    launched.ranks[1].order("complain cause")
    launched.ranks[1].exit(7)
    assert launched.ranks[0].read() == f"signal {signal.SIGTERM:d}"
    launched.ranks[0]._link.sendall(b"complain consequence\nexit 9\n")
    code, _, err = launched.finish()
    assert code == 1
    assert "rank 1 failed first: exit code 7" in err
    assert "  | cause" in err
    assert "rank 0 failed" not in err


def test_rank_that_ignores_the_end_is_killed(start):
    launched = start(2)
    launched.ranks[0].order("stubborn")
    os.kill(launched.ranks[0].pid, signal.SIGSTOP)  # as deaf as a process inside TensorFlow
    launched.ranks[1].exit(1)
    assert launched.finish()[0] == 1
    assert launched.ranks[0].is_gone()


def test_usage_error_of_a_rank_is_one_of_the_command(start):
    launched = start(2)
    launched.ranks[0].exit(2)
    assert launched.finish()[0] == 2


def test_single_rank_fails(start):
    launched = start(1)
    launched.ranks[0].order("complain Traceback")
    launched.ranks[0].exit(1)
    code, _, err = launched.finish()
    assert code == 1
    assert err.count("Traceback") == 1
    assert "rank 0 failed: exit code 1" in err


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_is_passed_on_and_decides_the_exit_code(start, signum, code):
    launched = start(3)
    launched.process.send_signal(signum)
    for rank in launched.ranks:
        assert rank.read() == f"signal {signum:d}"
        assert rank.is_gone()
    result, _, err = launched.finish()
    assert result == code
    assert "failed" not in err


def test_lost_terminal_stops_the_run(start):
    launched = start(1)
    launched.process.send_signal(signal.SIGHUP)
    assert launched.ranks[0].read() == f"signal {signal.SIGTERM:d}"
    assert launched.finish()[0] == 143


def test_ranks_may_take_their_time_to_stop_and_then_end_normally(start):
    launched = start(2)
    for rank in launched.ranks:
        rank.order("stubborn")
    launched.process.send_signal(signal.SIGINT)
    for rank in launched.ranks:
        assert rank.read() == f"signal {signal.SIGINT:d}"
        rank.order("print saved")
        rank.exit(0)
    code, out, _ = launched.finish()
    assert code == 130
    assert out == "saved\n"


def test_second_signal_kills(start):
    launched = start(2)
    for rank in launched.ranks:
        rank.order("stubborn")
    launched.process.send_signal(signal.SIGINT)
    for rank in launched.ranks:
        assert rank.read() == f"signal {signal.SIGINT:d}"
    time.sleep(1.2 * SAME_REQUEST_SECONDS)  # until then it counts as the same request
    launched.process.send_signal(signal.SIGINT)
    assert all(rank.is_gone() for rank in launched.ranks)
    code, _, err = launched.finish()
    assert code == 130
    assert "killed because they did not stop: ranks 0, 1" in err


def test_a_request_that_reaches_everybody_twice_leaves_ranks_their_time(start):
    launched = start(2)
    for rank in launched.ranks:
        rank.order("stubborn")
    for _ in range(2):
        launched.process.send_signal(signal.SIGTERM)
        for rank in launched.ranks:
            os.kill(rank.pid, signal.SIGTERM)
    for rank in launched.ranks:
        rank._link.sendall(b"exit 0\n")
        rank.wait_until_gone()
    code, _, err = launched.finish()
    assert code == 143
    assert "killed" not in err


def test_ranks_that_do_not_stop_in_time_are_killed(start):
    launched = start(2, grace_seconds=0.2)
    for rank in launched.ranks:
        rank.order("stubborn")
    launched.process.send_signal(signal.SIGTERM)
    for rank in launched.ranks:
        rank.wait_until_gone()  # a busy machine may leave it no time to say which signal came
    code, _, err = launched.finish()
    assert code == 143
    assert "killed because they did not stop: ranks 0, 1" in err


def test_failure_while_stopping_is_a_failure(start):
    launched = start(2)
    for rank in launched.ranks:
        rank.order("stubborn")
    launched.process.send_signal(signal.SIGINT)
    for rank in launched.ranks:
        assert rank.read() == f"signal {signal.SIGINT:d}"
    launched.ranks[1].order("complain disk full")
    launched.ranks[1].exit(1)
    assert launched.ranks[0].read() == f"signal {signal.SIGTERM:d}"
    launched.ranks[0].exit(0)
    code, _, err = launched.finish()
    assert code == 1
    assert "rank 1 failed first" in err


def test_signal_to_one_rank_stops_all(start):
    launched = start(3)
    os.kill(launched.ranks[1].pid, signal.SIGTERM)
    for rank in launched.ranks:
        assert rank.read() == f"signal {signal.SIGTERM:d}"
        assert rank.is_gone()
    code, _, err = launched.finish()
    assert code == 143
    assert "rank 1 was asked to stop by SIGTERM" in err


@pytest.mark.parametrize(("steps", "code"), [(0, 143), (1, 1)])
def test_a_rank_that_misses_one_that_left_on_a_signal_has_failed_only_if_steps_are_lost(start, steps, code):
    launched = start(2)
    waiting, asked = launched.ranks
    watchdog = Watchdog(60.0, 60.0)
    for _ in range(steps):
        watchdog.beat()
    began = processes.began(waiting.pid)
    state = RankState(0, waiting.pid, "host", processes.machine(), began, 1, watchdog.state())
    with open(rank_states.path_of(launched.log_dir, 0), "w") as file:
        json.dump({**state._asdict(), "state": state.state._asdict()}, file)
    waiting.order("stubborn")
    os.kill(asked.pid, signal.SIGTERM)
    assert waiting.read() == f"signal {signal.SIGTERM:d}"
    waiting.exit(EXIT_HUNG)
    assert launched.finish()[0] == code


def test_ranks_do_not_outlive_a_killed_launcher(start):
    launched = start(3)
    launched.process.kill()
    assert all(rank.is_gone() for rank in launched.ranks)


def test_what_a_rank_started_ends_with_it(start):
    launched = start(1)
    launched.ranks[0].order("fork")  # the child holds the socket open as long as it lives
    launched.ranks[0].exit(0)
    assert launched.finish()[0] == 0


@pytest.mark.parametrize(("stream", "order"), [("stdout", "print"), ("stderr", "complain")])
def test_run_goes_on_when_nobody_reads_the_console(start, stream, order):
    launched = start(1)
    getattr(launched.process, stream).close()
    setattr(launched.process, stream, None)
    for _ in range(5):  # more than the pipe in between holds
        launched.ranks[0].order(f"{order} {'x' * 70000}")
    launched.ranks[0].exit(0)
    assert launched.process.wait(LIMIT_SECONDS) == 0
    assert launched.log(0).count("x" * 70000) == 5


def test_restart_appends_to_the_logs(start, tmp_path):
    for _ in range(2):
        launched = start(1)
        launched.ranks[0].exit(0)
        launched.finish()
        os.remove(tmp_path / "socket")
    assert launched.log(0).count("=== started") == 2


def test_program_that_does_not_exist_fails_cleanly(tmp_path):
    script = (
        "import sys; from densenet_keras import errors; from densenet_keras.launch import launcher\n"
        "from densenet_keras.settings import config\n"
        "settings = config.Config().replace(log_dir=sys.argv[1], rank_size=2, backend='tensorflow')\n"
        "try: launcher.launch(settings, command=['/nonexistent/python'])\n"
        "except errors.RunError as error: print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
        timeout=LIMIT_SECONDS,
    )
    assert b"rank 0 could not be started" in result.stdout


def run_python(script, **environment):
    """A finished process that ran `script`."""
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": ROOT, **environment},
        capture_output=True,
        timeout=LIMIT_SECONDS,
    )


class TestWatchdog:
    """Hung threads wait for an event that never comes: only the watchdog can end these processes."""

    HANG = "def hang_here():\n    threading.Event().wait()\n"
    START = "import os, sys, threading, time\nfrom densenet_keras.watchdog import Watchdog\n"

    def test_lost_progress_ends_the_process_and_shows_where(self):
        script = self.START + self.HANG + (
            "with Watchdog(60.0, 0.2, poll_seconds=0.05) as watchdog:\n"
            "    watchdog.beat(0.001)\n"
            "    hang_here()\n"
        )  # fmt: skip
        result = run_python(script)
        assert result.returncode == 1
        assert b"while training" in result.stderr
        assert b"hang_here" in result.stderr

    def test_a_phase_has_its_own_time(self):
        script = self.START + self.HANG + (
            "with Watchdog(60.0, 60.0, poll_seconds=0.05) as watchdog:\n"
            "    watchdog.beat()\n"
            "    with watchdog.phase('compiling the first step', 0.2):\n"
            "        hang_here()\n"
        )  # fmt: skip
        result = run_python(script)
        assert result.returncode == 1
        assert b"while compiling the first step" in result.stderr

    def test_before_the_first_step_the_first_time_out_counts(self):
        script = self.START + self.HANG + (
            "with Watchdog(0.2, 60.0, poll_seconds=0.05):\n"
            "    hang_here()\n"
        )  # fmt: skip
        assert b"while starting" in run_python(script).stderr
