"""Who is waited for, as the states of the ranks tell it."""

import contextlib
import os
import subprocess
import sys

import pytest

from densenet_keras.launch import hangs, peers, processes, rank_states, views
from densenet_keras.launch.rank_logs import RankLog
from densenet_keras.launch.rank_states import RankState
from densenet_keras.launch.views import View
from densenet_keras.topology import Topology
from densenet_keras.watchdog import IN_CALLBACKS, TRAINING, WAITING, State, Watchdog
from tests.support.paths import ROOT


def state(phase=TRAINING, beats=10, silent_seconds=70.0, timeout_seconds=60.0):
    return State(phase, timeout_seconds, silent_seconds, beats, beats, 0.1, 60.0, 1.0)


def view(machine="elsewhere", stale_seconds=0.0, reading=(), ended="", pid=1, **of_state):
    made = View()
    for writes in (1, 2):
        found = RankState(0, pid, "host", machine, processes.began(pid), writes, state(**of_state))
        made.update(found._replace(reading=reading, ended=ended), 1.0)
    made.stale_seconds = stale_seconds
    return made


@pytest.mark.parametrize(
    ("other", "who"),
    [
        ({"stale_seconds": 60.0}, 1),
        ({"phase": WAITING}, 0),
        ({"beats": 9}, 1),
        ({"phase": IN_CALLBACKS}, 1),
        ({"reading": ("data/records.py:1 in read",)}, 1),
        ({"ended": "it failed: ValueError"}, 1),
        ({"ended": "it gave up: no progress"}, 0),
        ({}, 0),
    ],
)
def test_the_rank_that_the_others_wait_for_is_named(other, who):
    assert hangs.culprit({0: view(), 1: view(**other), 2: view()}, gave_up=0) == who


def test_the_rank_that_gave_up_may_be_the_one_that_hung():
    gave_up = view(reading=("read",), ended="it gave up: no progress")
    assert hangs.culprit({0: view(), 1: gave_up}, gave_up=1) == 1


def test_a_rank_that_has_ended_well_held_up_nobody():
    left = view(stale_seconds=60.0)
    left.has_left = True
    assert hangs.culprit({0: view(), 1: left}, gave_up=0) == 0


def test_a_stopped_process_is_seen():
    pid = os.fork()
    if pid == 0:
        os.execvp("sleep", ["sleep", "60"])
    try:
        os.kill(pid, 19)
        os.waitpid(pid, os.WUNTRACED)
        stopped = view(machine=processes.machine(), pid=pid)
        assert stopped.status == processes.STOPPED
        assert "stopped by a signal" in views.describe(1, stopped)
        assert hangs.culprit({0: view(), 1: stopped}, gave_up=0) == 1
        assert not views.is_at_work(stopped)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert stopped.status == ""
    assert "gone" in views.describe(1, stopped)


def test_who_is_within_its_time_is_at_work():
    assert views.is_at_work(view(phase=IN_CALLBACKS, timeout_seconds=float("inf")))
    assert not views.is_at_work(view(phase=TRAINING))
    assert not views.is_at_work(view(phase=WAITING, silent_seconds=1.0))
    assert not views.is_at_work(view(stale_seconds=20.0, silent_seconds=1.0))


STACKS = """Current thread 0x00007f0e1d2c2700 (most recent call first):
  File "/usr/lib/python3.7/threading.py", line 1044 in join
  File "/p/densenet_keras/commands/worker.py", line 60 in run_configuration

Thread 0x00007f0e1c2c2700 (most recent call first):
  File "/p/mine.py", line 3 in stuck
  File "/p/densenet_keras/training/loop.py", line 9 in run
  File "/p/densenet_keras/commands/worker.py", line 90 in _run
  File "/p/densenet_keras/commands/worker.py", line 80 in run
"""


def test_of_all_stacks_that_of_the_work_is_shown():
    assert [line.rpartition(" ")[2] for line in hangs.work_stack(STACKS)] == ["run", "_run", "run", "stuck"]
    assert hangs.work_stack("nothing of the kind") == []


class TestStates:
    @pytest.fixture
    def folder(self, tmp_path):
        return str(tmp_path)

    def test_what_a_rank_writes_others_read_until_it_ends_well(self, folder):
        watchdog = Watchdog(5.0, 3.0)
        watchdog.at(17)
        with rank_states.Announcer(folder, 3, watchdog).announcing() as announcer:
            found = rank_states.read(folder, 3)
            assert (found.rank, found.pid, found.state.step) == (3, os.getpid(), 17)
            with watchdog.unlimited():
                announcer.write()
            assert rank_states.read(folder, 3).state.phase == IN_CALLBACKS
        announcer.write()  # its thread may be about to
        assert rank_states.read(folder, 3) is None
        assert os.listdir(os.path.join(folder, "rank_logs")) == []

    def test_a_rank_that_has_ended_well_is_not_lost(self, folder):
        """Not even for one that has not come as far, and looks when the process is long gone."""
        write = f"""
import sys
from densenet_keras.launch import rank_states
from densenet_keras.watchdog import Watchdog
with rank_states.Announcer({folder!r}, 1, Watchdog(5.0, 3.0)).announcing() as me:
    for _ in range(2):
        me.write()
        print(flush=True)
        sys.stdin.readline()
"""
        other = subprocess.Popen(
            [sys.executable, "-c", write], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        others = peers.Peers(folder, Topology(0, 2, 0, 2), None)
        for _ in range(2):
            other.stdout.readline()
            others.look(state())
            other.stdin.write(b"\n")
            other.stdin.flush()
        other.communicate()
        assert other.returncode == 0
        others.look(state())
        assert "rank 1 (process" in others.story()
        assert "it has ended well" in others.story()
        assert (others.lost(), others.are_at_work()) == ("", False)

    def test_a_run_is_not_judged_by_the_states_of_an_earlier_start(self, folder):
        for rank in (0, 1):
            rank_states.Announcer(folder, rank, Watchdog(5.0, 3.0)).leave("it failed: long ago")
        with contextlib.closing(RankLog(folder, 0)) as log:
            started = {0: -1, 1: -2}  # of processes that have not written yet
            verdict = hangs.HangWatch(folder).judge(started, {}, gave_up=0, logs={0: log})
        assert verdict.rank == 0
        assert "rank 1: not heard of" in verdict.story

    def test_a_rank_that_fails_leaves_the_reason(self, folder):
        with pytest.raises(ValueError, match="^xxx"), rank_states.Announcer(
            folder, 0, Watchdog(5.0, 3.0)
        ).announcing():
            raise ValueError("x" * 10000)
        assert rank_states.read(folder, 0).ended.startswith("it failed: ValueError: xxx")

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "{}", '{"state": 1}', pytest.param("[" * 4000, id="deep")]
    )
    def test_what_is_no_state_is_none(self, folder, text):
        os.makedirs(os.path.join(folder, "rank_logs"))
        with open(rank_states.path_of(folder, 0), "w") as file:
            file.write(text)
        assert rank_states.read(folder, 0) is None

    def test_the_state_of_an_earlier_run_says_nothing(self, folder):
        """Its process no longer writes."""
        earlier = rank_states.Announcer(folder, 1, Watchdog(5.0, 3.0))
        with pytest.raises(ValueError, match="bad"), earlier.announcing():
            raise ValueError("bad")
        me = rank_states.Announcer(folder, 0, Watchdog(5.0, 3.0))
        others = peers.Peers(folder, Topology(0, 2, 0, 2), me)
        for _ in range(3):
            others.look(state())
        assert (others.lost(), others.are_at_work()) == ("", False)


def test_callbacks_that_take_their_time_are_spoken_of_more_and_more_rarely():
    note = rank_states.CallbackNote(1)
    where = ("/home/u/mine.py:3 in on_epoch_end",)
    said = [
        note.due(state(IN_CALLBACKS, silent_seconds=seconds), where) for seconds in (59, 61, 100, 123, 200)
    ]
    assert [bool(each) for each in said] == [False, True, False, True, False]
    assert said[1].endswith(
        "in the callbacks for 61 s, and the run waits for it, at /home/u/mine.py:3 in on_epoch_end"
    )
    assert not note.due(state(TRAINING, silent_seconds=1000.0), where)
    assert note.due(state(IN_CALLBACKS, silent_seconds=61), where), "another time"
