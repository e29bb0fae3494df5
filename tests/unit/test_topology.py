"""Every launcher's variables give the rank they mean; what cannot be meant is refused."""

import json

import pytest

from densenet_keras.errors import UsageError
from densenet_keras.settings.config import Config
from densenet_keras.topology import (
    LOCAL_RANK,
    LOCAL_SIZE,
    Topology,
    adopt_rank_size,
    available_cores,
    believed,
    in_place,
    refuse_foreign_launcher,
)


def tf_config(addresses, rank, chief=False):
    cluster = {"worker": addresses}
    task = {"type": "worker", "index": rank}
    if chief:
        cluster = {"chief": addresses[:1], "worker": addresses[1:]}
        task = {"type": "worker", "index": rank - 1} if rank else {"type": "chief", "index": 0}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def ompi(rank, size, local_rank=None, local_size=None):
    values = {"OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": str(size)}
    if local_rank is not None:
        values["OMPI_COMM_WORLD_LOCAL_RANK"] = str(local_rank)
        values["OMPI_COMM_WORLD_LOCAL_SIZE"] = str(local_size)
    return values


def slurm(rank, size, **more):
    values = {"SLURM_PROCID": str(rank), "SLURM_NTASKS": str(size), "SLURM_STEP_ID": "0"}
    values.update({"SLURM_JOB_ID": "77", "SLURM_LOCALID": "0"}, **more)
    return values


def ascend(rank, size):
    return {"RANK_ID": str(rank), "RANK_SIZE": str(size)}


def place(environ):
    """Rank, size, local rank, local size, however many ranks there are."""
    topology = Topology.from_environment(environ, adopt_rank_size(Config(), environ))
    return topology.rank, topology.size, topology.local_rank, topology.local_size


HOSTS = ["a:1", "a:2", "b:1", "b:2"]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (0, 1, 0, 1)),
        (tf_config(HOSTS, 0), (0, 4, 0, 2)),
        (tf_config(HOSTS, 3), (3, 4, 1, 2)),
        (tf_config(HOSTS, 0, chief=True), (0, 4, 0, 2)),
        (tf_config(HOSTS, 2, chief=True), (2, 4, 0, 2)),
        ({"TF_CONFIG": ""}, (0, 1, 0, 1)),
        ({"TF_CONFIG": "{}"}, (0, 1, 0, 1)),
        ({"TF_CONFIG": '{"cluster": {}}'}, (0, 1, 0, 1)),
        (ascend(3, 8), (3, 8, 3, 8)),
        (ascend(0, 1), (0, 1, 0, 1)),
        ({**ascend(9, 16), LOCAL_RANK: "1", LOCAL_SIZE: "8"}, (9, 16, 1, 8)),
        (ompi(5, 8, 1, 4), (5, 8, 1, 4)),
        (ompi(5, 8), (5, 8, 5, 8)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "1"}, (1, 2, 0, 1)),
        (slurm(5, 6, SLURM_LOCALID="1", SLURM_NODEID="2", SLURM_STEP_TASKS_PER_NODE="2(x3)"), (5, 6, 1, 2)),
        (slurm(2, 3, SLURM_NODEID="1", SLURM_TASKS_PER_NODE="2,1"), (2, 3, 0, 1)),
    ],
)
def test_place(environ, expected):
    assert place(environ) == expected


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"RANK_SIZE": "8"},  # left behind in a shell
        {"RANK_ID": "", "RANK_SIZE": "8"},
        {"TF_CONFIG": "{}"},
        ompi(0, 1),
        slurm(0, 1),
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"},  # the shell of sbatch
        slurm(0, 8, SLURM_STEP_ID="4294967290", SLURM_STEP_NUM_TASKS="1"),  # the shell of salloc
        slurm(0, 8, SLURM_STEP_ID="4294967291"),
        slurm(0, 8, SLURM_STEP_NUM_TASKS="1"),  # srun -n 1 in an allocation of 8
        {LOCAL_RANK: "1", LOCAL_SIZE: "2"},
    ],
)
def test_no_rank(environ):
    assert not in_place(environ)


@pytest.mark.parametrize("environ", [tf_config(HOSTS, 1), ascend(0, 1), ompi(1, 2), slurm(1, 2)])
def test_in_place(environ):
    assert in_place(environ)


def test_addresses_in_rank_order():
    environ = tf_config(HOSTS, 2, chief=True)
    assert Topology.from_environment(environ, Config().replace(rank_size=4)).addresses == tuple(HOSTS)


def test_one_rank_needs_no_address():
    assert Topology.from_environment(tf_config(["a:1"], 0), Config()).addresses == ()


@pytest.mark.parametrize(
    "environ",
    [
        {**ascend(1, 2), **ompi(1, 2, 1, 2)},
        {**tf_config(HOSTS[:2], 1), **ascend(1, 2), **slurm(1, 2)},
        {**ascend(1, 2), **slurm(0, 1)},
        {**ascend(5, 8), **slurm(1, 2)},  # one task a host, whose script starts that host's ranks
        {**ompi(5, 8), **slurm(1, 7)},  # Slurm's task is the daemon of mpirun
    ],
)
def test_agreeing_variables(environ):
    assert in_place(environ)


@pytest.mark.parametrize(
    "environ",
    [
        {**ascend(1, 2), **ompi(0, 2)},
        {**ascend(0, 1), **slurm(1, 8)},
        {**ascend(0, 8), **slurm(3, 8)},
        {**tf_config(HOSTS, 0), **ascend(0, 2)},
        {**tf_config(HOSTS, 0), **ascend(1, 4)},
        {**tf_config(HOSTS, 3), **ascend(0, 2)},
    ],
)
def test_contradictions_are_refused(environ):
    with pytest.raises(UsageError, match="a process has one rank"):
        in_place(environ)


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"TF_CONFIG": "{"}, ["TF_CONFIG", "not JSON"]),
        (tf_config(HOSTS, 4), ["TF_CONFIG", '"worker"']),
        (tf_config(["a:1", "a:1"], 0), ["TF_CONFIG", "one address to two ranks"]),
        (tf_config(["a", "b"], 0), ["TF_CONFIG", "host:port"]),
        (tf_config(["a:0", "b:1"], 0), ["TF_CONFIG", "host:port"]),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, ["TF_CONFIG", "task"]),
        ({"TF_CONFIG": '{"cluster": ["a:1"], "task": {"type": "worker", "index": 0}}'}, ["TF_CONFIG"]),
        (
            {
                "TF_CONFIG": json.dumps(
                    {"cluster": {"ps": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}}
                )
            },
            ["TF_CONFIG", "chief and workers"],
        ),
        ({"RANK_ID": "2"}, ["RANK_ID=2", "RANK_SIZE"]),
        (ascend(8, 8), ["RANK_ID", "rank 8 of 8"]),
        (ascend("worker-0", 8), ["RANK_ID='worker-0'"]),
        (ascend(0, "many"), ["RANK_SIZE='many'"]),
        (ompi(2, 2), ["OMPI_COMM_WORLD_RANK", "rank 2 of 2"]),
    ],
)
def test_impossible_values_are_refused(environ, names):
    with pytest.raises(UsageError) as caught:
        in_place(environ)
    for name in names:
        assert name in str(caught.value)


def test_rank_size_is_adopted():
    assert adopt_rank_size(Config(), ompi(1, 8)).device.rank_size == 8
    eight = Config().replace(rank_size=8)
    assert adopt_rank_size(eight, ompi(1, 8)) is eight
    assert adopt_rank_size(eight, {}) is eight


@pytest.mark.parametrize("function", [adopt_rank_size, lambda c, e: Topology.from_environment(e, c)])
def test_rank_size_mismatch_names_both(function):
    with pytest.raises(UsageError, match=r"--rank_size 4.*SLURM_NTASKS.* 8"):
        function(Config().replace(rank_size=4), slurm(1, 8))


def test_several_ranks_need_a_place():
    with pytest.raises(UsageError, match="--rank_size 2"):
        Topology.from_environment({}, Config().replace(rank_size=2))


@pytest.mark.parametrize(("files", "cores"), [
    ({"cpu.max": "150000 100000\n"}, 1),
    ({"cpu.max": "50000 100000\n"}, 1),
    ({"cpu.max": "200000 100000\n"}, 2),
    ({"cpu.max": "max 100000\n"}, 64),
    ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
    ({"cpu.max": "odd"}, 64),
    ({}, 64),
])  # fmt: skip
def test_a_containers_quota_counts_not_the_machines_cores(tmp_path, monkeypatch, files, cores):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)))
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert available_cores(str(tmp_path)) == cores


@pytest.mark.parametrize(("text", "said"), [
    ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}', "ps tasks"),
    ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}', "a ps task"),
    ('{"cluster": {"chief": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}', "an? evaluator task"),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": Infinity}}', "no rank"),
    ('{"cluster": ' + "[" * 99999, "not JSON"),
], ids=["ps in cluster", "ps", "evaluator", "infinite", "deep"])  # fmt: skip
def test_a_task_that_there_is_none_of_here_is_named(text, said):
    with pytest.raises(UsageError, match=said):
        in_place({"TF_CONFIG": text})


def test_the_variables_that_were_believed_are_named():
    assert believed({}) == ""
    assert believed({"RANK_ID": "0", "RANK_SIZE": "2"}) == "rank 0 of 2, as RANK_ID, RANK_SIZE say"
    assert believed(tf_config(["a:1", "b:1"], 1)) == "rank 1 of 2, as TF_CONFIG says"
    terminal = {"SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4"}  # srun --pty
    assert believed(terminal) == "rank 0 of 4, as SLURM_PROCID, SLURM_NTASKS say"


def test_a_number_of_ranks_that_was_left_over_is_named_and_not_believed():
    assert "RANK_SIZE=8 is not believed" in believed({"RANK_SIZE": "8"})


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, "torchrun"),
        ({"HOROVOD_RANK": "0", "HOROVOD_SIZE": "2"}, "horovodrun"),
        ({"MV2_COMM_WORLD_RANK": "0", "MV2_COMM_WORLD_SIZE": "2"}, "MVAPICH2"),
    ],
)
def test_a_launcher_whose_ranks_are_not_known_is_refused_with_what_to_use(environ, said):
    with pytest.raises(UsageError, match=f"{said}.*--rank_size"):
        refuse_foreign_launcher(environ)
    # A launcher that is known takes precedence; one process alone is nobody's rank.
    mpi = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}
    refuse_foreign_launcher({**environ, **mpi})
    refuse_foreign_launcher({name: "1" if "SIZE" in name else "0" for name in environ})
