"""The launcher's pure parts: environments, ports, files, logs and what it reports."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from densenet_keras.checkpoints import run_folder
from densenet_keras.errors import RunError, UsageError
from densenet_keras.launch import launcher, rendezvous
from densenet_keras.launch.rank_logs import FinalLines, RankLog
from densenet_keras.launch.supervisor import Failure, Outcome
from densenet_keras.settings import config as configuration
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology

EIGHT = Config().replace(rank_size=8, backend="tensorflow")


def test_every_rank_finds_its_place_in_its_environment():
    addresses = [f"127.0.0.1:{5000 + rank}" for rank in range(8)]
    environments = launcher.rank_environments(EIGHT, {"HOME": "/home/u", "PYTHONPATH": "/own"}, addresses)
    places = [Topology.from_environment(environment, EIGHT) for environment in environments]
    assert places == [Topology(rank, 8, rank, 8, tuple(addresses)) for rank in range(8)]
    for environment in environments:
        assert environment["HOME"] == "/home/u"
        assert environment["DENSENET_KERAS_PARENT"] == str(os.getpid())
        folder, own = environment["PYTHONPATH"].split(os.pathsep)
        assert os.path.isfile(os.path.join(folder, "densenet_keras", "commands", "worker.py"))
        assert own == "/own"


def test_one_rank_has_no_cluster():
    (environment,) = launcher.rank_environments(Config().replace(backend="tensorflow"), {}, [])
    assert "TF_CONFIG" not in environment
    assert Topology.from_environment(environment, Config()) == Topology()


def test_base_environment_is_left_alone():
    base = {"A": "1"}
    launcher.rank_environments(EIGHT, base, [f"127.0.0.1:{5000 + rank}" for rank in range(8)])
    assert base == {"A": "1"}


def test_reserved_port_is_closed_to_others_and_open_to_servers():
    listen = (
        "import socket, sys; s = socket.socket(); "
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(sys.argv[2])); "
        "s.bind(('', int(sys.argv[1]))); s.listen()"
    )
    with launcher.reserved_ports(3) as ports:
        assert len(set(ports)) == 3
        for port in ports:
            command = [sys.executable, "-c", listen, str(port)]
            assert subprocess.run([*command, "1"], stderr=subprocess.PIPE).returncode == 0
            refused = subprocess.run([*command, "0"], stderr=subprocess.PIPE)
            assert b"in use" in refused.stderr


def test_more_ranks_than_ports_is_said_before_any_starts():
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        with pytest.raises(RunError, match="3000 ranks .*--rank_size"), launcher.reserved_ports(3000):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_configuration_is_left_in_the_run_folder(tmp_path):
    config = EIGHT.replace(log_dir=str(tmp_path / "new" / "run"))
    path = run_folder.write_configuration(config)
    assert path == str(tmp_path / "new" / "run" / "run.json")
    assert configuration.load(path) == config
    evaluation = config.replace(command="evaluate")
    assert run_folder.write_configuration(evaluation).endswith("evaluate.json")
    assert configuration.load(path) == config
    assert sorted(os.listdir(os.path.dirname(path))) == ["evaluate.json", "run.json"]


def test_a_run_that_may_be_continued_keeps_its_configuration_until_it_is(tmp_path):
    config = Config().replace(log_dir=str(tmp_path), backend="tensorflow")
    first = run_folder.write_request(config)
    assert first == str(tmp_path / "run.json")
    for name in ("model.ckpt-5.index", "model.ckpt-5.data-00000-of-00001"):
        (tmp_path / name).write_bytes(b"")
    changed = config.replace(lr=0.5)
    request = run_folder.write_request(changed)
    assert configuration.load(request) == changed
    assert configuration.load(first) == config
    run_folder.write_configuration(changed)
    assert configuration.load(first) == changed


def test_a_full_disk_leaves_no_part_of_a_configuration(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UsageError, match="No space left on device"):
        run_folder.write_configuration(EIGHT.replace(log_dir=str(tmp_path)))
    assert not os.listdir(str(tmp_path))


def test_run_folder_that_cannot_be_made_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--log_dir .*file"):
        run_folder.write_configuration(EIGHT.replace(log_dir=str(tmp_path / "file" / "run")))


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000])
def test_log_keeps_the_last_state_of_each_line(tmp_path, cut):
    stream = b"0%\r50%\r100%\nplain\nwindows\r\nbar \r\n\xff\xfe\nunfinished\r"
    path = tmp_path / "log"
    with open(path, "wb") as file:
        lines = FinalLines(file)
        for start in range(0, len(stream), cut):
            lines.write(stream[start : start + cut])
        lines.finish()
    assert path.read_bytes() == b"100%\nplain\nwindows\r\nbar \r\n\xff\xfe\nunfinished\n"


def test_tail_is_of_this_start_and_readable(tmp_path):
    first = RankLog(str(tmp_path), 3)
    first.file.write(b"of the first start\n")
    first.close()
    second = RankLog(str(tmp_path), 3)
    second.file.write(b"line\n" * 100 + b"10%\r20%\r\nred \x1b[31mtext\x00 \xff\n\n  \nlast without end")
    second.close()
    tail = second.tail(4)
    assert tail == ["line", "20%", "red [31mtext \ufffd", "last without end"]
    assert "of the first start" not in second.text()
    assert "of the first start" in (tmp_path / "rank_logs" / "rank_3.log").read_text(errors="replace")


def logs(folder, **texts):
    made = {}
    for name, text in texts.items():
        rank = int(name[1:])
        made[rank] = RankLog(str(folder), rank)
        made[rank].file.write(text.encode())
        made[rank].close()
    return made


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome(), 0),
        (Outcome(stop_signal=signal.SIGINT), 130),
        (Outcome(stop_signal=signal.SIGTERM, killed=[1]), 143),
        (Outcome(failure=Failure(0, 1)), 1),
        (Outcome(failure=Failure(0, -11)), 1),
        (Outcome(failure=Failure(0, 77)), 1),
        (Outcome(failure=Failure(0, 2)), 2),
        (Outcome(failure=Failure(0, 1), stop_signal=signal.SIGINT), 1),
    ],
)
def test_exit_codes(tmp_path, outcome, code):
    outcome.logs = logs(tmp_path, r0="")
    assert launcher.report(outcome) == code


def test_report_names_rank_cause_tail_and_log(tmp_path, capsys):
    made = logs(tmp_path, r0="fine\n", r3="one\ntwo\n", r4="later\n")
    launcher.report(Outcome(failure=Failure(3, -signal.SIGKILL), logs=made))
    said = capsys.readouterr().err
    assert "rank 3 failed first: killed by signal 9 (SIGKILL)" in said
    assert "  | one\n  | two\n" in said
    assert made[3].path in said
    assert "later" not in said


ABORTED = """step: 1
2026-01-01 10:00:00.000001: E tf_adapter/kernels/a.cc:1] Failed to get tensor data
F tf_adapter/kernels/geop_npu.cc:743] GEOP::::DoRunAsync Failed
Fatal Python error: Aborted

Thread 0x00007f0e1c2c2700 (most recent call first):
  File "/usr/lib/python3.7/threading.py", line 300 in wait

Current thread 0x00007f0e1d2c2700 (most recent call first):
  File "session.py", line 12 in run
"""


def test_an_abort_is_explained_by_the_first_error_above_it(tmp_path, capsys):
    made = logs(tmp_path, r0="", r1=ABORTED)
    launcher.report(Outcome(failure=Failure(1, -signal.SIGABRT), logs=made))
    said = capsys.readouterr().err
    assert "the first error in its log: 2026-01-01 10:00:00.000001: E tf_adapter/kernels/a.cc:1]" in said
    assert "  | Fatal Python error: Aborted\n" in said
    assert "most recent call first" not in said
    assert "in wait" not in said
    launcher.report(Outcome(failure=Failure(1, 1), logs=made))
    assert "the first error in its log" not in capsys.readouterr().err


def test_usage_error_on_the_console_is_not_repeated(tmp_path, capsys):
    launcher.report(Outcome(failure=Failure(0, 2), logs=logs(tmp_path, r0="error: --lr\n", r1="")))
    assert capsys.readouterr().err == ""


def test_usage_error_of_another_rank_is_shown(tmp_path, capsys):
    launcher.report(Outcome(failure=Failure(1, 2), logs=logs(tmp_path, r0="", r1="error: --lr\n")))
    assert "error: --lr" in capsys.readouterr().err


class TestRendezvous:
    """Ranks of one process each, here threads: nothing is shared but the folder."""

    @staticmethod
    def meet(folder, size, ranks=None, key="job", timeout_seconds=30.0):
        results = {}

        def attend(rank):
            meeting = rendezvous.Meeting(str(folder), key, rank, size)
            try:
                results[rank] = meeting.addresses(timeout_seconds)
            except RunError as error:
                results[rank] = error
            finally:
                meeting.close()

        threads = [threading.Thread(target=attend, args=(rank,)) for rank in ranks or range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    def test_all_get_the_same_addresses(self, tmp_path):
        results = self.meet(tmp_path, 5)
        assert len(set(results.values())) == 1
        addresses = results[0]
        assert len(set(addresses)) == 5
        assert all(address.startswith("127.0.0.1:") for address in addresses)

    def test_files_of_an_earlier_job_are_not_believed(self, tmp_path):
        before = self.meet(tmp_path, 3)[0]
        after = self.meet(tmp_path, 3)
        assert len(set(after.values())) == 1
        members = json.loads((tmp_path / ".rendezvous" / "job" / "roster.json").read_text())["members"]
        assert tuple(f"127.0.0.1:{member['port']}" for member in members) == after[0]
        assert before != after[0]

    def test_rank_zero_does_not_go_with_a_rank_of_an_earlier_job(self, tmp_path):
        self.meet(tmp_path, 3)
        results = self.meet(tmp_path, 3, ranks=[0, 2], timeout_seconds=1.0)
        assert isinstance(results[0], RunError)
        assert "met no rank 1 " in str(results[0])
        assert isinstance(results[2], RunError)

    def test_missing_ranks_are_named(self, tmp_path):
        results = self.meet(tmp_path, 4, ranks=[0, 2], timeout_seconds=0.5)
        assert "rank 0 of 4 met no rank 1, 3" in str(results[0])
        assert "rank 2 of 4 met no rank 0" in str(results[2])

    def test_hosts_get_addresses_that_others_can_reach(self):
        members = [
            {"machine": "a", "host": "10.0.0.1", "port": 1, "token": ""},
            {"machine": "b", "host": "10.0.0.2", "port": 2, "token": ""},
        ]
        assert rendezvous._addresses(members) == ("10.0.0.1:1", "10.0.0.2:2")

    @pytest.mark.parametrize(
        "found",
        [
            {"members": [{}, {}]},
            {"members": 3},
            {"members": [1, 2]},
            {"final": True},
            {"members": [{"token": 1}] * 2},
        ],
    )
    def test_a_roster_that_no_rank_wrote_is_not_believed(self, tmp_path, found):
        meeting = rendezvous.Meeting(str(tmp_path), "job", 1, 2)
        (tmp_path / ".rendezvous" / "job" / "roster.json").write_text(json.dumps(found))
        with contextlib.closing(meeting), pytest.raises(RunError, match="rank 1 of 2 met no rank 0"):
            meeting.addresses(0.0)

    def test_port_stays_reserved(self, tmp_path):
        meeting = rendezvous.Meeting(str(tmp_path), "job", 0, 1)
        (address,) = meeting.addresses(5.0)
        other = socket.socket()
        with other, pytest.raises(OSError, match="in use"):
            other.bind(("", int(address.rpartition(":")[2])))
        meeting.close()

    @pytest.mark.parametrize(
        ("environ", "key"),
        [
            ({}, "job"),
            ({"PMIX_NAMESPACE": "prterun-host-12@1", "SLURM_JOB_ID": "7"}, "prterun-host-12_1"),
            ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "2"}, "7-2"),
            ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "2", "SLURM_RESTART_COUNT": "1"}, "7-2-1"),
            ({"JOB_ID": "../up"}, "___up"),
        ],
    )
    def test_job_key(self, environ, key):
        assert rendezvous.job_key(environ) == key
