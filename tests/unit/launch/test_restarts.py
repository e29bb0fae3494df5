"""Which ends of a run lead to another start, and when it is given up."""

import signal

import pytest

from densenet_keras.errors import EXIT_CRASHED, EXIT_FAILED, EXIT_HUNG, EXIT_USAGE
from densenet_keras.launch import restarts
from densenet_keras.launch.rank_logs import RankLog
from densenet_keras.launch.restarts import Restarts
from densenet_keras.launch.supervisor import Failure, Outcome
from densenet_keras.settings.config import Config


@pytest.fixture
def outcome(tmp_path):
    """outcome(code, **more): of a run whose rank 1 failed with `code`."""

    def make(code, said="", **more):
        log = RankLog(str(tmp_path), 1)
        log.file.write(said.encode())
        log.close()
        return Outcome(failure=None if code is None else Failure(1, code), logs={1: log}, **more)

    return make


@pytest.fixture
def save(tmp_path):
    """save(step): leaves a checkpoint as its names tell it."""

    def write(step):
        for end in ("index", "data-00000-of-00001"):
            (tmp_path / f"model.ckpt-{step}.{end}").write_bytes(b"")

    return write


def make(folder, environ=(), local_ranks=2, **settings):
    config = Config().replace(log_dir=str(folder), rank_size=2, **settings)
    return Restarts(config, local_ranks, dict(environ))


@pytest.mark.parametrize(
    ("code", "more", "expected"),
    [
        (-signal.SIGKILL, {}, True),
        (-signal.SIGSEGV, {}, True),
        (EXIT_HUNG, {}, True),
        (EXIT_CRASHED, {}, True),
        (EXIT_FAILED, {}, False),
        (EXIT_USAGE, {}, False),
        (3, {}, False),
        (-signal.SIGTERM, {}, False),
        (None, {"stop_signal": signal.SIGINT}, False),
        (-signal.SIGKILL, {"stop_signal": signal.SIGTERM}, False),
        (-signal.SIGABRT, {"said": "E a.cc:1] train-00000-of-00001: record 7 (byte 5): damaged"}, False),
        (None, {}, False),
    ],
)
def test_accidents_alone_lead_to_another_start(outcome, code, more, expected, monkeypatch):
    monkeypatch.setattr(restarts.records, "named_in", lambda text: "record 7" if "record 7" in text else "")
    assert restarts.is_accident(outcome(code, **more)) == expected


def test_pauses_grow_and_the_number_of_restarts_is_kept(outcome, save, tmp_path, capsys):
    starts = make(tmp_path, max_restarts=3)
    pauses = []
    for step in (5, 10, 15, 20):
        save(step)
        pauses.append(starts.pause_after(outcome(-9), "rank 1 failed: killed"))
    assert pauses == [2.0, 4.0, 8.0, None]
    log = (tmp_path / "densenet121.log").read_text().splitlines()
    assert log[0].startswith(
        "restart 1 of 3 in 2 s, from the checkpoint of step 5: rank 1 failed: killed, at 20"
    )
    assert log[-1].startswith("rank 1 failed: killed; not started again: --max_restarts 3 are used up, at 20")
    assert capsys.readouterr().err.splitlines() == log


def test_two_starts_without_progress_are_enough(outcome, save, tmp_path):
    save(5)
    starts = make(tmp_path, max_restarts=10)
    assert starts.pause_after(outcome(-9), "rank 1 failed: killed") is not None
    assert starts.pause_after(outcome(-9), "rank 1 failed: killed") is None
    log = (tmp_path / "densenet121.log").read_text()
    assert "not started again: 2 starts in a row saved nothing after step 5" in log


def test_progress_in_between_counts(outcome, save, tmp_path):
    starts = make(tmp_path, max_restarts=10)
    assert starts.pause_after(outcome(-9), "rank 1 failed: killed") is not None
    save(5)
    assert starts.pause_after(outcome(-9), "rank 1 failed: killed") is not None
    assert starts.pause_after(outcome(-9), "rank 1 failed: killed") is not None
    assert starts.pause_after(outcome(-9), "rank 1 failed: killed") is None


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ({}, 3),
        ({"max_restarts": 0}, 0),
        ({"environ": {"SLURM_JOB_ID": "7"}}, 0),
        ({"environ": {"SLURM_JOB_ID": "7"}, "max_restarts": 5}, 5),
        ({"environ": {"VC_TASK_INDEX": "0"}}, 0),
        ({"environ": {"VC_WORKER_HOSTS": "a,b"}}, 0),
        ({"local_ranks": 1}, 0),
        ({"command": "evaluate"}, 0),
    ],
)
def test_who_restarts_jobs_anyway_is_left_to_it(tmp_path, given, allowed):
    assert make(tmp_path, **given)._allowed == allowed
