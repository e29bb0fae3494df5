"""The rank table of a job: found, waited for, made or translated; and this server's part of it."""

from __future__ import annotations

import logging
import os
import time
from typing import List, Mapping, Optional, Sequence, Tuple

from densenet_keras.backends.ascend import chips, rank_table
from densenet_keras.backends.ascend.machine import Machine
from densenet_keras.backends.ascend.rank_table_rules import INITIALIZING, RankTable, Server
from densenet_keras.errors import UsageError
from densenet_keras.settings.config import Config

SERVER_ID = "DENSENET_KERAS_SERVER_ID"
# Where the cluster controllers of Volcano jobs mount the table.
MOUNTED_TABLE = "/user/serverid/devindex/config/hccl.json"
# ModelArts sets RANK_TABLE_FILE to the folder of this file in jobs with an image of one's own.
MODELARTS_TABLE = "jobstart_hccl.json"
# Platforms say in these which server or pod a process runs on.
SERVER_VARIABLES = (
    "HOST_IP",
    "XDL_IP",
    "MA_CURRENT_HOST_IP",
    "HCCL_IF_IP",
    "POD_NAME",
    "MA_CURRENT_INSTANCE_NAME",
)
TABLE_WAIT_SECONDS = 900
TABLE_POLL_SECONDS = 5

_log = logging.getLogger(__name__)


def written_path(config: Config) -> str:
    """Where a table that was made or translated is written."""
    return os.path.abspath(os.path.join(config.run.log_dir, "rank_table.json"))


def job_table(
    config: Config,
    environ: Mapping[str, str],
    machine: Machine,
    hccn_conf_path: str,
    here: int,
    write: bool = True,
) -> Tuple[Optional[RankTable], str]:
    """The checked table and the path that ranks are to read it from; (None, "") for a lone rank.

    Args:
        here: how many ranks run on this server as far as the caller knows; without a given table it
            must be all of them.
        write: puts a table that was made or translated into the run folder, unless this is a dry run.
    """
    size, chip = config.device.rank_size, chips.of(config)
    path = _given_path(config, environ)
    if not path and size == 1:
        return None, ""
    if path:
        if size == 1 and not config.ascend.rank_table and not os.path.exists(path):
            raise UsageError(
                f"RANK_TABLE_FILE={path} does not exist; unset RANK_TABLE_FILE, one device needs no table"
            )
        table = _load(path, not config.device.dry_run)
        if size == 1 and len(table.ranks()) > 1 and not config.ascend.rank_table:
            raise UsageError(
                f"RANK_TABLE_FILE={path} is a table of {len(table.ranks())} ranks, but --rank_size is 1; "
                "unset RANK_TABLE_FILE to use one device, or give the size of the table"
            )
        # HCCL reads every value as a string: a table with numbers is written anew, as the older form is.
        if table.form == "server_list":
            table.check(size, chip)
            if not table.has_numbers:
                return table, os.path.abspath(path)
    elif here != size:
        raise UsageError(
            f"{size} ranks, of which {here} run on this server, need the common rank table of all "
            "servers; give it with --rank_table"
        )
    else:
        table = _table_of_this_server(config, environ, machine, hccn_conf_path)
    table.check(size, chip)
    if write and not config.device.dry_run:
        rank_table.write(table, written_path(config))
    return table, written_path(config)


def _given_path(config: Config, environ: Mapping[str, str]) -> str:
    """The table that the user or the platform gives; empty if none."""
    flag = config.ascend.rank_table
    variable = environ.get("RANK_TABLE_FILE", "")
    if os.path.isdir(variable):
        variable = os.path.join(variable, MODELARTS_TABLE)
    if flag and variable and os.path.realpath(flag) != os.path.realpath(variable):
        raise UsageError(
            f"--rank_table {flag} and RANK_TABLE_FILE={variable} differ; unset the variable or leave the "
            "flag out"
        )
    if not flag and not variable and config.device.rank_size > 1 and os.path.exists(MOUNTED_TABLE):
        return MOUNTED_TABLE
    return flag or variable


def _load(path: str, wait: bool) -> RankTable:
    """The table, after its controller has completed it if it is one that a platform mounts."""
    table = rank_table.load(path)
    mounted = path == MOUNTED_TABLE or os.path.basename(path) == MODELARTS_TABLE
    if not (wait and mounted):
        return table
    deadline = time.monotonic() + TABLE_WAIT_SECONDS
    while table.status == INITIALIZING and time.monotonic() < deadline:
        _log.info("waiting for the cluster's controller to complete rank table %s", path)
        time.sleep(TABLE_POLL_SECONDS)
        table = rank_table.load(path)
    return table


def _table_of_this_server(
    config: Config, environ: Mapping[str, str], machine: Machine, hccn_conf_path: str
) -> RankTable:
    size, chip = config.device.rank_size, chips.of(config)
    counts = chip.counts or range(1, chip.devices_per_server + 1)
    if size not in counts:
        shown = ", ".join(map(str, chip.counts)) or f"1 to {chip.devices_per_server}"
        raise UsageError(
            f"--rank_size {size} on one server, but the {chip.name} communicates over {shown} devices of a "
            "server; for several servers give the common table with --rank_table, for another kind of NPU "
            "--npu"
        )
    device_ids = _choose_devices(machine, size, chip)
    server_id = environ.get("HCCL_IF_IP") or next(iter(machine.addresses), "127.0.0.1")
    try:
        with open(hccn_conf_path, encoding="utf-8") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{hccn_conf_path} is not text (byte {error.start}), but must have lines such as "
            "address_0=192.168.100.101; restore it, or give a table with --rank_table"
        ) from error
    except OSError as error:
        if not chip.needs_addresses:
            return rank_table.without_addresses(device_ids, server_id)
        if config.device.dry_run:
            # A plan needs no NIC: addresses reserved for documentation (RFC 5737) stand in for them.
            text = "".join(f"address_{device_id}=192.0.2.{device_id + 1}\n" for device_id in device_ids)
        else:
            raise UsageError(
                f"{hccn_conf_path} cannot be read: {error.strerror}; {size} ranks need the NIC addresses "
                "of their devices: pass the file into the container, or give a table with --rank_table"
            ) from error
    return rank_table.from_hccn_conf(text, device_ids, server_id, source=hccn_conf_path)


def _choose_devices(machine: Machine, size: int, chip: chips.Chip) -> List[int]:
    """The first `size` devices that may talk to one another."""
    candidates = list(machine.device_ids) or list(range(chip.devices_per_server))
    networks: Sequence[List[int]] = [candidates]
    if chip.networks and size < chip.devices_per_server:
        networks = [[number for number in candidates if number in network] for network in chip.networks]
    for members in networks:
        if len(members) >= size:
            return members[:size]
    needed = f"{size} are"
    if chip.networks:
        needed = f"{size} of one network (0 to 3 or 4 to 7; all of them for {chip.devices_per_server}) are"
    raise UsageError(
        f"--rank_size {size}: this machine shows the devices {candidates}, but {needed} needed; pass more "
        "devices into the container or use fewer ranks"
    )


def named_server(table: RankTable, environ: Mapping[str, str], machine: Machine) -> Optional[Server]:
    """The entry that names this machine, if one does."""
    if SERVER_ID in environ:
        for server in table.servers:
            if environ[SERVER_ID] in (server.server_id, *server.names):
                return server
        raise UsageError(
            f"{SERVER_ID}={environ[SERVER_ID]} is not a server of rank table {table.source}, which lists "
            f"{', '.join(server.server_id for server in table.servers)}"
        )
    given = [environ[name] for name in SERVER_VARIABLES if name in environ]
    for name in (*given, machine.host_name, *machine.addresses):
        for server in table.servers:
            if name and name in (server.server_id, *server.names):
                return server
    return None


def this_server(table: RankTable, environ: Mapping[str, str], machine: Machine) -> Server:
    server = named_server(table, environ, machine)
    if server is not None:
        return server
    if len(table.servers) == 1:  # a container's address is not that of its server
        return table.servers[0]
    raise UsageError(
        f"no server of rank table {table.source} ({', '.join(s.server_id for s in table.servers)}) is this "
        f"machine, {machine.host_name} with {', '.join(machine.addresses) or 'no address'}; say which with "
        f"{SERVER_ID}=<server_id>"
    )
