"""The environment that every rank needs on Ascend servers, started by us or by a cluster.

`rank_environments` serves the launcher: one entry for each rank of this server. `complete_environment`
serves a process that a scheduler started as one rank. Both return additions only: what the user or
the platform has set stays, except a RANK_TABLE_FILE that names a folder or the older table form,
which no rank can use with a numeric RANK_ID; that one is pointed at its translation in log_dir.
"""

from __future__ import annotations

import re
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from densenet_keras.backends.ascend import chips, work_folder
from densenet_keras.backends.ascend.job_table import job_table, named_server, this_server, written_path
from densenet_keras.backends.ascend.machine import Machine
from densenet_keras.backends.ascend.rank_table_rules import Device, Server
from densenet_keras.errors import UsageError
from densenet_keras.settings.config import Config
from densenet_keras.topology import CORES, Topology

# The adapter's start without a table excludes the one with a table.
TABLELESS = ("CM_CHIEF_IP", "CM_CHIEF_PORT", "CM_CHIEF_DEVICE", "CM_WORKER_SIZE", "CM_WORKER_IP")
PER_RANK = ("RANK_ID", "DEVICE_ID", "ASCEND_DEVICE_ID", "DEVICE_INDEX")
CONNECT_TIMEOUT_SECONDS = (120, 7200)  # what the library accepts
LEAST_CONNECT_TIMEOUT_SECONDS = 600  # ranks compile at different speeds
# How long the device may take to shut down; profiles are written then.
SHUTDOWN_SECONDS = "DENSENET_KERAS_SHUTDOWN_SECONDS"
DEFAULT_SHUTDOWN_SECONDS = 60
# How long a rank that has compiled waits in its first exchange for one that still compiles. The 910 rounds
# down to multiples of 68 (hccl, docs/zh/user_guide/hccl_env/HCCL_EXEC_TIMEOUT.md).
EXEC_TIMEOUT_STEP_SECONDS = 68
EXEC_TIMEOUT_SECONDS = 1836  # the library's default


def rank_environments(
    config: Config,
    base_env: Mapping[str, str],
    *,
    hccn_conf_path: str = "/etc/hccn.conf",
    machine: Optional[Machine] = None,
) -> List[Dict[str, str]]:
    """What to add to `base_env` for each rank of this server, in rank order.

    Writes log_dir/rank_table.json when the table had to be made or translated; a dry run writes nothing
    and plans without the NIC configuration.

    Raises:
        UsageError: the table, the devices or a variable the user set cannot work.
    """
    size = config.device.rank_size
    environ = _set_variables(base_env)
    machine = (machine or Machine.probe()).shown_to(environ)
    _refuse_conflicts(environ, size, chips.of(config))
    _check_named_devices(environ, machine)
    table, table_path = job_table(config, environ, machine, hccn_conf_path, size)
    if table is None:
        ranks: Sequence[Tuple[int, Device]] = [(0, Device(_single_device(environ, machine), "", 0))]
    else:
        server = this_server(table, environ, machine)
        ranks = [(device.rank, device) for device in sorted(server.devices, key=lambda d: d.rank)]
        _check_visible(server, machine)
    for name in PER_RANK:
        if name in environ and len(ranks) > 1:
            raise UsageError(
                f"{name}={environ[name]} in the environment would be given to all {len(ranks)} ranks of "
                f"this server, but each needs its own; unset {name}"
            )
    environments = []
    for local_rank, (rank, device) in enumerate(ranks):
        values = _rank_values(config, rank, size, device, machine)
        cores = core_range(machine.cores, local_rank, len(ranks))
        environments.append(_additions(environ, values, table_path, cores))
    return environments


def ranks_here(
    config: Config,
    base_env: Mapping[str, str],
    *,
    hccn_conf_path: str = "/etc/hccn.conf",
    machine: Optional[Machine] = None,
) -> List[int]:
    """The ranks for which `rank_environments` has an entry; waits for the table as it does, writes nothing.

    Raises:
        UsageError: the table or the devices cannot work.
    """
    environ = _set_variables(base_env)
    machine = (machine or Machine.probe()).shown_to(environ)
    size = config.device.rank_size
    table, _ = job_table(config, environ, machine, hccn_conf_path, size, write=False)
    if table is None:
        return [0]
    return sorted(device.rank for device in this_server(table, environ, machine).devices)


def complete_environment(
    config: Config,
    environ: Mapping[str, str],
    *,
    hccn_conf_path: str = "/etc/hccn.conf",
    machine: Optional[Machine] = None,
) -> Dict[str, str]:
    """What to add to the environment of a process that a scheduler started as one rank.

    Raises:
        UsageError: no table says which device is this rank's, or what is set cannot work.
    """
    environ = _set_variables(environ)
    machine = (machine or Machine.probe()).shown_to(environ)
    place = Topology.from_environment(environ, config)
    rank, size = place.rank, place.size
    _refuse_conflicts(environ, size, chips.of(config))
    _check_named_devices(environ, machine)
    if environ.get("RANK_TABLE_FILE") == written_path(config):
        config = config.replace(rank_table="")  # the launcher has translated it already
    table, table_path = job_table(config, environ, machine, hccn_conf_path, place.local_size)
    if table is None:
        device = Device(_single_device(environ, machine), "", 0)
        return _additions(environ, _rank_values(config, rank, size, device, machine), table_path, "")
    server, device = table.ranks()[rank]
    here = named_server(table, environ, machine)
    if here is not None and here.server_id != server.server_id:
        raise UsageError(
            f"rank {rank} runs on server {here.server_id}, but rank table {table.source} puts it on "
            f"{server.server_id}; list the servers in the order in which the scheduler numbers its tasks"
        )
    _check_visible(server, machine)
    local = sorted(other.rank for other in server.devices)
    # A scheduler that binds its tasks leaves fewer cores than the machine has; those stay as they are.
    free = machine.cores if len(machine.cores) == machine.core_count else ()
    values = _rank_values(config, rank, size, device, machine)
    return _additions(environ, values, table_path, core_range(free, local.index(rank), len(local)))


def core_range(cores: Sequence[int], local_rank: int, local_size: int) -> str:
    """The contiguous share of one rank, such as 0-23; empty if the ranks outnumber the cores."""
    if len(cores) < local_size or local_size < 2:
        return ""
    share = cores[local_rank * len(cores) // local_size : (local_rank + 1) * len(cores) // local_size]
    parts: List[List[int]] = []
    for core in share:
        if parts and core == parts[-1][1] + 1:
            parts[-1][1] = core
        else:
            parts.append([core, core])
    return ",".join(f"{first}-{last}" for first, last in parts)


def shutdown_seconds(environ: Mapping[str, str]) -> int:
    """How long the device may take to shut down.

    Raises:
        UsageError: the variable is not a whole number of at least 1.
    """
    if not environ.get(SHUTDOWN_SECONDS):
        return DEFAULT_SHUTDOWN_SECONDS
    seconds = _number(environ, SHUTDOWN_SECONDS)
    if seconds < 1:
        raise UsageError(f"{SHUTDOWN_SECONDS}={seconds} must be at least 1; correct or unset it")
    return seconds


def _set_variables(environ: Mapping[str, str]) -> Dict[str, str]:
    # An empty value means unset: an empty JOB_ID fails inside the adapter as a missing one does.
    return {name: value for name, value in environ.items() if value != ""}


def _number(environ: Mapping[str, str], name: str) -> int:
    if not re.fullmatch(r"\d+", environ[name]):
        raise UsageError(f"{name}={environ[name]} must be a whole number from 0; correct or unset it")
    return int(environ[name])


def _refuse_conflicts(environ: Mapping[str, str], size: int, chip: chips.Chip) -> None:
    tableless = [name for name in TABLELESS if name in environ]
    if tableless:
        raise UsageError(
            f"{tableless[0]}={environ[tableless[0]]} starts ranks without a rank table, which excludes "
            f"RANK_SIZE and RANK_TABLE_FILE that this program sets; unset {', '.join(tableless)}"
        )
    # 0 is the adapter's way to say that there is no communication.
    if "RANK_SIZE" in environ and _number(environ, "RANK_SIZE") not in ((0, 1) if size == 1 else (size,)):
        raise UsageError(
            f"RANK_SIZE={environ['RANK_SIZE']} in the environment, but --rank_size {size}; make them agree"
        )
    job = environ.get("JOB_ID", "job")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", job) or re.fullmatch(r"0\d*", job):
        raise UsageError(
            f"JOB_ID={job} may have letters, digits, - and _ only, and no leading 0 if all are digits"
        )
    shutdown_seconds(environ)
    ranges = {
        "HCCL_CONNECT_TIMEOUT": CONNECT_TIMEOUT_SECONDS,
        "HCCL_EXEC_TIMEOUT": chip.exec_timeout_seconds,
    }
    for name, (least, most) in ranges.items():
        if name in environ and not least <= _number(environ, name) <= most:
            raise UsageError(f"{name}={_number(environ, name)} must be {least} to {most} seconds")


def _single_device(environ: Mapping[str, str], machine: Machine) -> int:
    """The chip of a lone rank: what the user set, else the first that is there."""
    if "DEVICE_ID" in environ:
        return _number(environ, "DEVICE_ID")
    if "ASCEND_DEVICE_ID" in environ:
        logical = _number(environ, "ASCEND_DEVICE_ID")
        return machine.device_ids[logical] if logical < len(machine.device_ids) else logical
    return next(iter(machine.device_ids), 0)


def _check_named_devices(environ: Mapping[str, str], machine: Machine) -> None:
    """Refuses the number of a device that does not exist, whoever has set it: a user or a scheduler."""
    if not machine.device_ids:
        return  # a plan made elsewhere
    shown = ", ".join(f"/dev/davinci{number}" for number in machine.device_ids)
    if "DEVICE_ID" in environ and _number(environ, "DEVICE_ID") not in machine.device_ids:
        raise UsageError(
            f"DEVICE_ID={environ['DEVICE_ID']}, but only {shown} are visible here; correct or unset it"
        )
    count = len(machine.device_ids)
    if "ASCEND_DEVICE_ID" in environ and _number(environ, "ASCEND_DEVICE_ID") >= count:
        raise UsageError(
            f"ASCEND_DEVICE_ID={environ['ASCEND_DEVICE_ID']}, but it counts the devices here, which are "
            f"{shown}: 0 to {count - 1}; correct or unset it"
        )


def _check_visible(server: Server, machine: Machine) -> None:
    missing = [d.device_id for d in server.devices if d.device_id not in machine.device_ids]
    if machine.device_ids and missing:
        raise UsageError(
            f"the rank table gives server {server.server_id} device {missing[0]}, but only "
            f"{', '.join(f'/dev/davinci{number}' for number in machine.device_ids)} are visible here; pass "
            "the device into the container or correct the table"
        )


def _rank_values(config: Config, rank: int, size: int, device: Device, machine: Machine) -> Dict[str, str]:
    first_step = config.device.first_step_timeout_seconds
    connect = max(LEAST_CONNECT_TIMEOUT_SECONDS, first_step)
    most = chips.of(config).exec_timeout_seconds[1]
    execute = max(
        EXEC_TIMEOUT_SECONDS, -(-first_step // EXEC_TIMEOUT_STEP_SECONDS) * EXEC_TIMEOUT_STEP_SECONDS
    )
    return {
        "RANK_ID": str(rank),
        "RANK_SIZE": str(size),
        "DEVICE_ID": str(device.device_id),
        "ASCEND_DEVICE_ID": str(machine.logical_id(device.device_id)),
        "DEVICE_INDEX": str(rank),
        work_folder.VARIABLE: work_folder.own_folder(config, rank),
        "HCCL_CONNECT_TIMEOUT": str(min(connect, CONNECT_TIMEOUT_SECONDS[1])),
        "HCCL_EXEC_TIMEOUT": str(min(execute, most)),
    }


def _job_id(environ: Mapping[str, str]) -> str:
    """The same for every rank of a job."""
    if environ.get("SLURM_JOB_ID"):
        return f"slurm-{environ['SLURM_JOB_ID']}"
    return "densenet-keras"


def _additions(
    environ: Mapping[str, str], values: Dict[str, str], table_path: str, cores: str
) -> Dict[str, str]:
    wanted = {name: value for name, value in values.items() if value}
    wanted["JOB_ID"] = _job_id(environ)
    if cores:
        wanted[CORES] = cores
    additions = {name: value for name, value in wanted.items() if name not in environ}
    # Set even over a RANK_TABLE_FILE that names a folder or an older form, as the module says.
    if table_path and environ.get("RANK_TABLE_FILE") != table_path:
        additions["RANK_TABLE_FILE"] = table_path
    return additions
