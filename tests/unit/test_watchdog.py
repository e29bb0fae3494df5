"""The watchdog's arithmetic on a clock of the test's own; tests/parallel has it end real processes."""

import statistics
import types

import pytest

from densenet_keras import watchdog as watchdogs
from densenet_keras.watchdog import Watchdog

POLL_SECONDS = 1.0


@pytest.fixture
def watch(monkeypatch):
    """watch(watchdog, polls): lets the watchdog poll; what it would end the process for.

    `polls` gives a time in seconds and an action for each poll: how long the poll takes, and what the
    training thread does before it.
    """

    class GivenUp(Exception):
        pass

    def give_up(phase, silent_seconds, others, lost):
        raise GivenUp(lost or phase.what)

    def run(watchdog, polls):
        now = 0.0
        remaining = iter(polls)

        def wait(seconds):
            nonlocal now
            assert seconds == POLL_SECONDS
            for poll_seconds, action in remaining:
                action()
                now += poll_seconds
                return False
            return True

        monkeypatch.setattr(watchdog, "_done", types.SimpleNamespace(wait=wait))
        monkeypatch.setattr(watchdogs, "time", types.SimpleNamespace(monotonic=lambda: now))
        monkeypatch.setattr(watchdogs, "_give_up", give_up)
        try:
            watchdog._watch()
        except GivenUp as given_up:
            return str(given_up)
        return None

    return run


def make(first_step_timeout_seconds=5.0, step_timeout_seconds=3.0):
    return Watchdog(first_step_timeout_seconds, step_timeout_seconds, poll_seconds=POLL_SECONDS)


def nothing():
    pass


def test_silence_is_measured_against_the_time_out_and_not_before(watch):
    assert watch(make(), [(1.0, nothing)] * 5) is None
    assert watch(make(), [(1.0, nothing)] * 6) == "starting"


def test_progress_keeps_it_alive(watch):
    watchdog = make()
    assert watch(watchdog, [(1.0, watchdog.beat), (1.0, nothing), (1.0, nothing)] * 20) is None
    assert watch(watchdog, [(1.0, watchdog.beat)] + [(1.0, nothing)] * 3) == "training"


def test_time_in_which_the_process_itself_was_stopped_does_not_count(watch):
    watchdog = make()
    assert watch(watchdog, [(1.0, watchdog.beat), (10000.0, nothing)]) is None


def test_a_phase_has_its_own_time_and_hands_back_a_fresh_one(watch):
    watchdog = make()
    watchdog.beat()
    phase = watchdog.phase("saving", 8.0)
    enter, leave = phase.__enter__, lambda: phase.__exit__(None, None, None)
    quiet = [(1.0, nothing)]
    assert watch(watchdog, [(1.0, enter), *quiet * 7, (1.0, leave), *quiet * 2]) is None
    assert watch(watchdog, quiet) == "training"
    phase = watchdog.phase("saving", 8.0)
    assert watch(watchdog, [(1.0, phase.__enter__), *quiet * 8]) == "saving"


def test_usual_times_are_learned():
    watchdog = make(60.0, 1.0)
    for seconds in [2.0, 3.0, 4.0, 100.0, 3.0]:
        watchdog.beat(seconds)
    assert watchdog._phases[-1].timeout_seconds == 20 * 3.0


@pytest.mark.parametrize("seconds", [[0.01], [0.01, 0.01, 10.0], [0.04, 0.06, 0.06], [0.05], [10.0, 0.01]])
def test_the_time_allowed_is_the_larger_of_the_one_given_and_20_usual_times(seconds):
    watchdog = make(60.0, 1.0)
    for each in seconds:
        watchdog.beat(each)
    assert watchdog.state().timeout_seconds == max(1.0, 20 * statistics.median(seconds))


def test_the_time_of_a_first_run_is_allowed_again_until_another_is_known():
    watchdog = make(60.0, 1.0)
    watchdog.beat(700.0, compiled=True)
    assert watchdog.state().timeout_seconds >= 700.0
    watchdog.beat(3.0)
    assert watchdog.state().timeout_seconds == 20 * 3.0


def test_code_that_is_not_ours_may_take_its_time(watch):
    watchdog = make()
    callbacks = watchdog.unlimited()
    assert watch(watchdog, [(1.0, callbacks.__enter__), *[(1.0, nothing)] * 1000]) is None


def test_a_kind_of_work_has_its_own_pace(watch):
    """An evaluation's batches teach nothing about steps, and the other way round."""
    watchdog = make(step_timeout_seconds=3.0)
    watchdog.beat(1.0)
    evaluating = watchdog.phase("evaluating", 8.0, kind="evaluating")
    quiet = [(1.0, nothing)]
    slow_batch = [*quiet, (1.0, watchdog.beat)]
    first = [(1.0, evaluating.__enter__), *quiet * 6, (1.0, watchdog.beat)]
    assert watch(watchdog, [*first, *slow_batch * 3, *quiet * 39]) is None
    assert watch(watchdog, quiet * 2) == "evaluating"
    evaluating.__exit__(None, None, None)
    assert watchdog.state().timeout_seconds == 20 * 1.0


def test_a_compilation_inside_teaches_nothing_about_what_is_around_it(watch):
    watchdog = make()
    evaluating = watchdog.phase("evaluating", 5000.0, kind="evaluating")
    compiling = watchdog.phase("compiling", 5000.0)
    enter, leave = compiling.__enter__, lambda: compiling.__exit__(None, None, None)
    polls = [(1.0, evaluating.__enter__), (1000.0, enter), (1.0, leave), (1.0, watchdog.beat)]
    assert watch(watchdog, polls) is None
    assert watchdog.state().timeout_seconds == 20 * 1.0


def test_a_phase_without_beats_teaches_its_whole_time(watch):
    watchdog = make()
    saving = watchdog.phase("saving", 3.0, kind="saving")
    assert watch(watchdog, [(1.0, saving.__enter__), (1.0, nothing), (1.0, nothing)]) is None
    saving.__exit__(None, None, None)
    with watchdog.phase("saving", 3.0, kind="saving"):
        assert watchdog.state().timeout_seconds > 3.0
    assert watchdog.state().stop_seconds > 0.0


class AtWork(watchdogs.Others):
    at_work = True
    gone = ""

    def are_at_work(self):
        return self.at_work

    def lost(self):
        return self.gone

    def leave(self, reason):
        pass

    def story(self):
        return ""


def test_a_rank_waits_for_another_that_is_at_work(watch):
    watchdog, others = make(), AtWork()
    watchdog.beat()
    watchdog.ask(others)
    quiet = [(1.0, nothing)]
    assert watch(watchdog, quiet * 100) is None
    others.at_work = False
    assert watch(watchdog, quiet) == "training"


def test_a_lost_rank_ends_the_wait_for_it_at_once(watch):
    watchdog, others = make(), AtWork()
    watchdog.beat()
    watchdog.ask(others)
    others.gone = "rank 1 is gone"
    assert watch(watchdog, [(1.0, nothing)]) == "rank 1 is gone"
