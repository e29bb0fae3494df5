"""What a rank table holds, and what it must say for Ascend servers; docs/ascend.md names the sources."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Dict, Iterator, Optional, Tuple

from densenet_keras.backends.ascend.chips import ATLAS_910, Chip
from densenet_keras.errors import UsageError

COMPLETED = "completed"
INITIALIZING = "initializing"
VERSION = "1.0"
SERVER_ID_LENGTH = 64


@dataclass(frozen=True)
class Device:
    """One rank: `device_id` is the number of the chip in its server, `device_ip` that of its own NIC."""

    device_id: int
    device_ip: str
    rank: int


@dataclass(frozen=True)
class Server:
    """One server's devices; `names` are all names and addresses the table knows it by."""

    server_id: str
    devices: Tuple[Device, ...]
    names: Tuple[str, ...] = ()


@dataclass(frozen=True)
class RankTable:
    """A whole job; `check` says whether it can be run."""

    servers: Tuple[Server, ...]
    source: str
    status: str = COMPLETED
    version: str = VERSION
    server_count: Optional[str] = None  # as the file says it; None where its form has no such field
    form: str = "server_list"
    values: Optional[Dict[str, Any]] = None  # the file's own, of the form that is written
    has_numbers: bool = False  # values that the file holds as numbers, where HCCL reads strings

    def ranks(self) -> Dict[int, Tuple[Server, Device]]:
        """Every rank's server and device (of ranks given twice: the last)."""
        return {device.rank: (server, device) for server in self.servers for device in server.devices}

    def check(self, rank_size: int, chip: Chip = ATLAS_910) -> None:
        """Nothing, if `rank_size` ranks can start from this table on NPUs of this kind.

        Raises:
            UsageError: every rule the table breaks, one a line, with server, device, value and remedy.
        """
        problems = list(_problems(self, rank_size, chip))
        if problems:
            lines = "".join(f"\n  - {problem}" for problem in problems)
            raise UsageError(f"rank table {self.source} cannot be used:{lines}")


def _problems(table: RankTable, rank_size: int, chip: Chip) -> Iterator[str]:
    """Every rule that the table breaks for a job of `rank_size` ranks, with value and remedy."""
    if table.status != COMPLETED:
        yield (
            f"status is {table.status!r}, but must be {COMPLETED!r}: wait until the cluster's "
            "controller has filled the table in, or correct the file"
        )
        return
    if table.version not in chip.table_versions:
        readable = " and ".join(map(repr, chip.table_versions))
        yield (f"version is {table.version!r}, but the {chip.name} reads {readable}; write it in that form")
    if table.server_count is not None and table.server_count != str(len(table.servers)):
        yield (
            f"server_count is {table.server_count!r}, but the list holds {len(table.servers)} servers; "
            "make them agree"
        )
    yield from _server_problems(table, chip)
    yield from _address_problems(table)
    yield from _rank_problems(table, rank_size)


def _server_problems(table: RankTable, chip: Chip) -> Iterator[str]:
    seen: Dict[str, int] = {}
    for position, server in enumerate(table.servers):
        if not server.server_id or len(server.server_id) > SERVER_ID_LENGTH:
            yield (
                f"server {position} has server_id {server.server_id!r}; it must have 1 to "
                f"{SERVER_ID_LENGTH} characters, such as the server's IP address"
            )
        if server.server_id in seen:
            yield (
                f"server_id {server.server_id!r} belongs to servers {seen[server.server_id]} and "
                f"{position}; list each server once, with all its devices"
            )
        seen[server.server_id] = position
        yield from _device_problems(server, len(table.servers), chip)
    counts = {server.server_id: len(server.devices) for server in table.servers}
    if len(set(counts.values())) > 1:
        yield f"servers have different numbers of devices, {counts}; every server must bring the same"


def _address_problems(table: RankTable) -> Iterator[str]:
    owners: Dict[str, str] = {}
    devices = [device for server in table.servers for device in server.devices]
    # Devices of one server, or of one super pod (Atlas A3), need no NIC to reach each other.
    pods = (table.values or {}).get("super_pod_list")
    together = len(table.servers) == 1 or (isinstance(pods, list) and len(pods) == 1)
    if together and not any(device.device_ip for device in devices):
        return
    for server in table.servers:
        for device in server.devices:
            where = f"server {server.server_id}, device {device.device_id}"
            if not _is_address(device.device_ip):
                yield (
                    f"{where}: device_ip {device.device_ip!r} is not the IP address of a NIC; "
                    f"hccn_tool -i {device.device_id} -ip -g shows the right one"
                )
            elif device.device_ip in owners:
                yield (
                    f"{where}: device_ip {device.device_ip} is also that of "
                    f"{owners[device.device_ip]}; give each device its own"
                )
            else:
                owners[device.device_ip] = where


def _rank_problems(table: RankTable, rank_size: int) -> Iterator[str]:
    owners: Dict[int, str] = {}
    total = sum(len(server.devices) for server in table.servers)
    for server in table.servers:
        for device in server.devices:
            where = f"server {server.server_id}, device {device.device_id}"
            if device.rank in owners:
                yield (
                    f"{where}: rank_id {device.rank} is also that of {owners[device.rank]}; "
                    f"use each of 0 to {total - 1} once"
                )
            elif not 0 <= device.rank < total:
                yield (
                    f"{where}: rank_id {device.rank} leaves a gap; {total} devices are ranks 0 to {total - 1}"
                )
            owners.setdefault(device.rank, where)
    if sorted(owners) == list(range(total)):
        yield from _order_problems(table)
    if total != rank_size:
        yield (
            f"it holds {total} devices, but --rank_size is {rank_size}; "
            "give the size of the table, or a table of that size"
        )


def _order_problems(table: RankTable) -> Iterator[str]:
    for server in table.servers:
        ranks = sorted(device.rank for device in server.devices)
        if ranks and ranks[-1] - ranks[0] >= len(ranks):
            yield (
                f"server {server.server_id} has the ranks {', '.join(map(str, ranks))}; those of a server "
                "must follow one another, without ranks of other servers between them"
            )


def _device_problems(server: Server, servers: int, chip: Chip) -> Iterator[str]:
    where = f"server {server.server_id}"
    ids = [device.device_id for device in server.devices]
    for device_id in sorted(set(ids)):
        if ids.count(device_id) > 1:
            yield f"{where}: device_id {device_id} is listed {ids.count(device_id)} times; list it once"
        if not 0 <= device_id < chip.devices_per_server:
            last = chip.devices_per_server - 1
            yield f"{where}: device_id {device_id} does not exist; a server has devices 0 to {last}"
    reason = chip.why_not_together(ids, servers)
    if reason:
        yield f"{where}: {reason}"


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    # Leading zeros of IPv4 parse, but other programs read them as octal.
    return (address.version == 6 or str(address) == text) and not (
        address.is_unspecified or address.is_multicast or address.is_loopback
    )
