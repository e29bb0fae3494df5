"""Which rank a process is, and where its peers are.

A rank that somebody else started finds its place in the variables of its launcher, nearest first:
TF_CONFIG (TensorFlow's convention for several hosts, also used by our own launcher), RANK_ID and
RANK_SIZE (Ascend), those of mpirun, those of srun.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Tuple

from densenet_keras.errors import UsageError
from densenet_keras.settings.config import Config

LOCAL_RANK = "DENSENET_KERAS_LOCAL_RANK"  # set by our launcher only, as LOCAL_SIZE
LOCAL_SIZE = "DENSENET_KERAS_LOCAL_SIZE"
CORES = "DENSENET_KERAS_CORES"  # those that a rank keeps to, such as 0-23

# rank, size, rank on this host, ranks on this host: Open MPI, then MPICH and Intel MPI
MPI_VARIABLES = (
    (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
)
_VALUE_SHOWN = 500  # characters
# Name, rank, size of launchers whose ranks would not know of each other.
FOREIGN_LAUNCHERS = (
    ("horovodrun", "HOROVOD_RANK", "HOROVOD_SIZE"),
    ("mpirun of MVAPICH2", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("flux", "FLUX_TASK_RANK", "FLUX_JOB_SIZE"),
    ("torchrun or the like", "RANK", "WORLD_SIZE"),
)
FIRST_SPECIAL_SLURM_STEP = 0xFFFFFFF0  # above: batch script, interactive shell, not a step of srun


@dataclass(frozen=True)
class Topology:
    """One process among `size`.

    `addresses` holds host:port of every rank in rank order; it is empty for one rank and on
    backends that find their peers themselves.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    addresses: Tuple[str, ...] = ()

    @property
    def is_primary(self) -> bool:
        """Whether this rank writes the files."""
        return self.rank == 0

    @staticmethod
    def from_environment(environ: Mapping[str, str], config: Config) -> Topology:
        """The place of the process with environment `environ` in the run that `config` describes.

        Raises:
            UsageError: the variables are malformed, contradict one another or `--rank_size`.
        """
        size = config.device.rank_size
        claim = _claim(environ)
        if claim is None:
            if size != 1:
                raise UsageError(
                    f"--rank_size {size}, but no variable says which rank this process is; start the "
                    "command itself, or set TF_CONFIG or RANK_ID and RANK_SIZE"
                )
            return Topology()
        if claim.size != size:
            raise _size_mismatch(size, claim)
        local_rank, local_size = claim.local_rank, claim.local_size
        if LOCAL_RANK in environ:
            local_rank = _integer(environ, LOCAL_RANK)
            local_size = _integer(environ, LOCAL_SIZE)
        return Topology(
            rank=claim.rank,
            size=size,
            local_rank=claim.rank if local_rank is None else local_rank,
            local_size=size if local_size is None else local_size,
            addresses=claim.addresses if size > 1 else (),
        )


def available_cores(cgroup: str = "/sys/fs/cgroup") -> int:
    """The cores that this process may use: a container's quota (docker --cpus) counts, too."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    return cores if quota is None else max(1, min(cores, int(quota)))


def _cpu_quota(cgroup: str) -> Optional[float]:
    """Processor seconds a second that the container of this process may use; None without a limit.

    As the container sees it: version 2 has "quota period" or "max period" in cpu.max, version 1 a file each
    (microseconds, -1 for none). https://docs.kernel.org/admin-guide/cgroup-v2.html, "CPU Interface Files".
    """
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):
            texts = []
            for name in names:
                with open(os.path.join(cgroup, name), encoding="ascii") as file:
                    texts += file.read().split()
            quota, period = (float(text) for text in texts)
            if quota > 0 and period > 0:
                return quota / period
    return None


def in_place(environ: Mapping[str, str]) -> bool:
    """Whether a process with environment `environ` already is a rank that somebody started."""
    return _claim(environ) is not None


def refuse_foreign_launcher(environ: Mapping[str, str]) -> None:
    """Refuses to be one of several processes of a launcher whose ranks this project does not know.

    Each would train by itself, all into one folder.

    Raises:
        UsageError: naming the launcher and what to use.
    """
    if in_place(environ):
        return
    for launcher, rank, size in FOREIGN_LAUNCHERS:
        if environ.get(rank, "").isdigit() and environ.get(size, "").isdigit() and int(environ[size]) > 1:
            ranks = environ[size]
            raise UsageError(
                f"{rank}={environ[rank]}, {size}={ranks}: {launcher} started this process as one of {ranks}, "
                f"and its ranks are not known here; start the command itself with --rank_size {ranks}, or by "
                f"mpirun -np {ranks} or srun --ntasks={ranks}, or set TF_CONFIG; unset {rank} if it is a "
                "remnant"
            )


def adopt_rank_size(config: Config, environ: Mapping[str, str]) -> Config:
    """`config` with the number of ranks that the launcher of this process chose.

    Raises:
        UsageError: `--rank_size` was given and says something else.
    """
    claim = _claim(environ)
    if claim is None or claim.size == config.device.rank_size:
        return config
    if config.device.rank_size != 1:
        raise _size_mismatch(config.device.rank_size, claim)
    return config.replace(rank_size=claim.size)


def believed(environ: Mapping[str, str]) -> str:
    """Which variables decide what this process is, as a sentence; empty if none of them is set."""
    claim = _claim(environ)
    if claim is not None:
        verb = "say" if ", " in claim.source else "says"
        return f"rank {claim.rank} of {claim.size}, as {claim.source} {verb}"
    if environ.get("RANK_SIZE") and LOCAL_RANK not in environ:
        return f"RANK_SIZE={environ['RANK_SIZE']} is not believed: without RANK_ID it makes no rank"
    return ""


@dataclass(frozen=True)
class _Claim:
    """What the variables of one launcher say about this process."""

    source: str
    rank: int
    size: int
    local_rank: Optional[int] = None
    local_size: Optional[int] = None
    addresses: Tuple[str, ...] = ()
    inheritable: bool = False  # everything that a task starts sees them, inner launchers included


def _claim(environ: Mapping[str, str]) -> Optional[_Claim]:
    """The nearest launcher's claim, after comparing it with the others."""
    claims = [_tf_config_claim(environ), _ascend_claim(environ), *_scheduler_claims(environ)]
    found = [claim for claim in claims if claim is not None]
    for claim in found:
        if not 0 <= claim.rank < claim.size:
            raise UsageError(
                f"{claim.source}: rank {claim.rank} of {claim.size} ranks; "
                "ranks count from 0 to one less than their number"
            )
    for other in found[1:]:
        nearest = found[0]
        # mpirun or srun with one task a host, whose script starts that host's ranks, is not a conflict.
        outer = other.inheritable and other.size < nearest.size
        if (other.rank, other.size) != (nearest.rank, nearest.size) and not outer:
            raise UsageError(
                f"{nearest.source}: rank {nearest.rank} of {nearest.size}, but {other.source}: rank "
                f"{other.rank} of {other.size}; a process has one rank, unset the wrong variables"
            )
    return found[0] if found else None


def _tf_config_claim(environ: Mapping[str, str]) -> Optional[_Claim]:
    text = environ.get("TF_CONFIG", "")
    if not text.strip():
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"TF_CONFIG is not JSON: {error}; its value is {text[:_VALUE_SHOWN]}") from error
    cluster = values.get("cluster") if isinstance(values, dict) else None
    if not cluster:  # some platforms set an empty one for a single process
        return None
    return _cluster_claim(cluster, values.get("task"), text)


def _cluster_claim(cluster: Any, task: Any, text: str) -> _Claim:
    remedy = (
        'write {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}; '
        "a chief comes before the workers"
    )
    kind = task.get("type") if isinstance(task, dict) else None
    if kind in ("ps", "evaluator"):
        raise UsageError(
            f"TF_CONFIG makes this process a {kind} task, and there are none here: gradients are summed "
            "among the workers, and evaluation is part of training or a command of its own (evaluate.py). "
            "Start chief and workers alone"
        )
    if isinstance(cluster, dict) and "ps" in cluster:
        raise UsageError(
            "TF_CONFIG names ps tasks (parameter servers), and there are none here: gradients are summed "
            "among the workers; its cluster must hold chief and workers alone"
        )
    try:
        first = "master" if "master" in cluster else "chief"  # master: the name before TensorFlow 1.13
        chiefs, workers = list(cluster.get(first, [])), list(cluster.get("worker", []))
        kind, number = task["type"], int(task["index"])
        rank = {first: 0, "worker": len(chiefs)}[kind] + number
        hosts = [address.rpartition(":")[0] for address in chiefs + workers]
        ports = [int(address.rpartition(":")[2]) for address in chiefs + workers]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise UsageError(f"TF_CONFIG {text} describes no rank ({error!r}); {remedy}") from error
    extra = sorted(set(cluster) - {first, "worker", "evaluator"})
    members = len(workers) if kind == "worker" else len(chiefs)
    if extra or not 0 <= number < members or not all(hosts) or not all(0 < p < 65536 for p in ports):
        raise UsageError(f"TF_CONFIG {text} describes no rank of chief and workers; {remedy}")
    addresses = tuple(chiefs + workers)
    if len(set(addresses)) != len(addresses):
        raise UsageError(f"TF_CONFIG {text} gives one address to two ranks; every rank needs its own")
    return _Claim(
        source="TF_CONFIG",
        rank=rank,
        size=len(addresses),
        local_rank=hosts[:rank].count(hosts[rank]),
        local_size=hosts.count(hosts[rank]),
        addresses=addresses,
    )


def _ascend_claim(environ: Mapping[str, str]) -> Optional[_Claim]:
    # RANK_SIZE alone stays behind in many shells; only RANK_ID makes a process a rank.
    if not environ.get("RANK_ID"):
        return None
    if not environ.get("RANK_SIZE"):
        raise UsageError(
            f"RANK_ID={environ['RANK_ID']} without RANK_SIZE; set both for a rank that you start "
            "yourself, or unset RANK_ID"
        )
    return _Claim("RANK_ID, RANK_SIZE", _integer(environ, "RANK_ID"), _integer(environ, "RANK_SIZE"))


def _scheduler_claims(environ: Mapping[str, str]) -> List[Optional[_Claim]]:
    """mpirun's claim, or else srun's: mpirun uses srun for its own daemons, one a host."""
    for names in MPI_VARIABLES:
        rank, size, local_rank, local_size = names
        if rank in environ and _integer(environ, size) > 1:
            return [
                _Claim(
                    source=f"{rank}, {size}",
                    rank=_integer(environ, rank),
                    size=_integer(environ, size),
                    local_rank=_integer(environ, local_rank) if local_rank in environ else None,
                    local_size=_integer(environ, local_size) if local_size in environ else None,
                    inheritable=True,
                )
            ]
    return [_slurm_claim(environ)]


def _slurm_claim(environ: Mapping[str, str]) -> Optional[_Claim]:
    """srun's claim; the shell of sbatch or salloc has SLURM_ variables, but is not a task of a step."""
    if "SLURM_PROCID" not in environ or not environ.get("SLURM_STEP_ID"):
        return None
    if _integer(environ, "SLURM_STEP_ID") >= FIRST_SPECIAL_SLURM_STEP:
        return None
    tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS"
    if tasks not in environ or _integer(environ, tasks) < 2:
        return None
    return _Claim(
        source=f"SLURM_PROCID, {tasks}",
        rank=_integer(environ, "SLURM_PROCID"),
        size=_integer(environ, tasks),
        local_rank=_integer(environ, "SLURM_LOCALID") if "SLURM_LOCALID" in environ else None,
        local_size=_slurm_local_size(environ),
        inheritable=True,
    )


def _slurm_local_size(environ: Mapping[str, str]) -> Optional[int]:
    """Tasks on this host, from a list of counts such as 2(x3),1."""
    text = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE", "")
    counts: List[int] = []
    for count, repeat in re.findall(r"(\d+)(?:\(x(\d+)\))?", text):
        counts += [int(count)] * int(repeat or 1)
    node = _integer(environ, "SLURM_NODEID") if "SLURM_NODEID" in environ else 0
    return counts[node] if node < len(counts) else None


def _integer(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    if not re.fullmatch(r"\s*\d+\s*", text):
        raise UsageError(f"{name}={text!r} must be a number from 0 on; correct or unset it")
    return int(text)


def _size_mismatch(rank_size: int, claim: _Claim) -> UsageError:
    return UsageError(
        f"--rank_size {rank_size}, but {claim.source} say that this process is one of {claim.size}; "
        "leave --rank_size out, or start as many processes as it says"
    )
