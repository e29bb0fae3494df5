"""Reads and writes rank tables, which say which device of which server is which rank.

Two forms are read: versions 1.0 and 1.2 with `server_list`, and the older `group_list` that some platforms
still mount. The older form is written as version 1.0.

`python -m densenet_keras rank_table TABLE SERVER=HCCN_CONF ...` writes the common table of several
servers from copies of their /etc/hccn.conf.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any, Dict, List, Sequence, Tuple

from densenet_keras import files
from densenet_keras.backends.ascend.chips import ATLAS_910, Chip
from densenet_keras.backends.ascend.rank_table_rules import INITIALIZING, VERSION, Device, RankTable, Server
from densenet_keras.errors import UsageError

_MOST_DIGITS = 6
_SHOWN = 40  # characters of a wrong value

# Names under which platforms record where a server or its container can be found.
_SERVER_NAMES = ("server_id", "host_ip", "server_ip", "container_ip", "pod_name")


def load(path: str) -> RankTable:
    """The table in a file, in either form; ranks of a group_list are counted in the file's order.

    Raises:
        UsageError: the file cannot be read, or is not a table. Use `check` for what the table says.
    """
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file, parse_int=_whole)
    except OSError as error:
        raise UsageError(
            f"rank table {path} cannot be read: {error.strerror}; give an existing file with --rank_table"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"rank table {path} is not text (byte {error.start}), but must be JSON; write it anew"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"rank table {path} is not JSON: {error}; write it anew") from error
    if not isinstance(values, dict):
        raise UsageError(f"rank table {path} must hold one JSON object, with server_list or group_list")
    reader = _Reader(path)
    status = str(values.get("status", ""))
    if "server_list" in values:
        optional = None if str(values.get("version")) == "1.2" else ""
        servers = tuple(reader.server(entry, place) for place, entry in reader.entries(values, "server_list"))
        return RankTable(
            servers=servers,
            source=path,
            status=status,
            version=_shortened(str(values.get("version", ""))),
            server_count=_shortened(str(values["server_count"])) if "server_count" in values else optional,
            values=values,
            has_numbers=_has_numbers(values),
        )
    if "group_list" in values:
        return RankTable(
            servers=reader.grouped_servers(values), source=path, status=status, form="group_list"
        )
    if status == INITIALIZING:
        return RankTable(servers=(), source=path, status=status)
    raise UsageError(f"rank table {path} has neither server_list nor group_list; write it in version 1.0")


def _whole(digits: str) -> Any:
    """A number, or the text of one that no field can mean: Python refuses to read thousands of digits."""
    return int(digits) if len(digits) <= 2 * _MOST_DIGITS else digits


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def _has_numbers(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_numbers, value.values()))
    if isinstance(value, list):
        return any(map(_has_numbers, value))
    return isinstance(value, (int, float))


def _as_strings(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_strings(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_as_strings(member) for member in value]
    return str(value)


class _Reader:
    """Turns the JSON of one file into records, naming the place of what it cannot read."""

    def __init__(self, path: str) -> None:
        self._path = path

    def _error(self, place: str, what: str) -> UsageError:
        return UsageError(f"rank table {self._path}: {place}: {what}")

    def entries(self, parent: Dict[str, Any], key: str, place: str = "") -> List[Tuple[str, Dict[str, Any]]]:
        """The objects of a list, each with its place in words."""
        values = parent.get(key)
        place = f"{place}, {key}" if place else key
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise self._error(place, f"is {values!r}, but must be a list of objects")
        return [(f"{place}[{position}]", value) for position, value in enumerate(values)]

    def number(self, entry: Dict[str, Any], key: str, place: str) -> int:
        """An integer that the file holds as a string or a number."""
        text = str(entry.get(key, ""))
        if not re.fullmatch(rf"\d{{1,{_MOST_DIGITS}}}", text):
            raise self._error(
                place,
                f"{key} is {_shortened(text)!r}, but must be a whole number from 0, of at most "
                f"{_MOST_DIGITS} digits",
            )
        return int(text)

    def server(self, entry: Dict[str, Any], place: str) -> Server:
        """A member of server_list."""
        devices = tuple(
            Device(
                device_id=self.number(device, "device_id", spot),
                device_ip=str(device.get("device_ip", "")),
                rank=self.number(device, "rank_id", spot),
            )
            for spot, device in self.entries(entry, "device", place)
        )
        names = tuple(str(entry[name]) for name in _SERVER_NAMES if entry.get(name))
        return Server(server_id=str(entry.get("server_id", "")), devices=devices, names=names)

    def grouped_servers(self, values: Dict[str, Any]) -> Tuple[Server, ...]:
        """The servers of a group_list; instances (pods) of one server are put together."""
        servers: Dict[str, Server] = {}
        rank = 0
        groups = self.entries(values, "group_list")
        self._same_count(values, "group_count", len(groups), "the table")
        for place, group in groups:
            instances = self.entries(group, "instance_list", place)
            self._same_count(group, "instance_count", len(instances), place)
            first_rank = rank
            for spot, instance in instances:
                server_id = str(instance.get("server_id", ""))
                known = servers.get(server_id, Server(server_id, ()))
                devices = []
                for name, device in self.entries(instance, "devices", spot):
                    device_id = self.number(device, "device_id", name)
                    devices.append(Device(device_id, str(device.get("device_ip", "")), rank))
                    rank += 1
                names = tuple(str(instance[name]) for name in _SERVER_NAMES if instance.get(name))
                servers[server_id] = replace(
                    known, devices=known.devices + tuple(devices), names=known.names + names
                )
            self._same_count(group, "device_count", rank - first_rank, place)
        return tuple(servers.values())

    def _same_count(self, entry: Dict[str, Any], key: str, counted: int, place: str) -> None:
        if key in entry and str(entry[key]) != str(counted):
            raise self._error(place, f"{key} is {entry[key]!r}, but {counted} are listed; make them agree")


def write(table: RankTable, path: str) -> None:
    """Puts a table at `path`, all values as strings, whole or not at all: in version 1.0 if it was made here.

    A table of a file keeps what is not read here, such as ports and super pods. Ranks and servers that
    share a folder may write the same table at the same time.
    """
    if table.values is not None:
        files.write_json(path, _as_strings(table.values))
        return
    servers = [
        {
            "server_id": server.server_id,
            "device": [
                {
                    "device_id": str(device.device_id),
                    **({"device_ip": device.device_ip} if device.device_ip else {}),
                    "rank_id": str(device.rank),
                }
                for device in server.devices
            ],
        }
        for server in table.servers
    ]
    values = {
        "version": VERSION,
        "server_count": str(len(servers)),
        "server_list": servers,
        "status": table.status,
    }
    files.write_json(path, values)


def without_addresses(device_ids: Sequence[int], server_id: str) -> RankTable:
    """The table of one server whose devices reach each other without a NIC; ranks in the order of devices."""
    devices = tuple(Device(device_id, "", rank) for rank, device_id in enumerate(device_ids))
    return RankTable(servers=(Server(server_id, devices, (server_id,)),), source="of this server")


def from_hccn_conf(
    text: str,
    device_ids: Sequence[int],
    server_id: str,
    *,
    first_rank: int = 0,
    source: str = "/etc/hccn.conf",
) -> RankTable:
    """The table of one server, from the `address_N=` lines of its NIC configuration.

    Args:
        text: contents of the configuration.
        device_ids: devices to use; ranks follow in this order from `first_rank`.

    Raises:
        UsageError: a device has no address, or two.
    """
    addresses: Dict[int, str] = {}
    for number, address in re.findall(r"^[ \t]*address_(\d+)[ \t]*=[ \t]*(\S*)", text, flags=re.MULTILINE):
        device_id = int(number)
        if addresses.get(device_id, address) != address:
            raise UsageError(
                f"{source}: device {device_id} has the addresses {addresses[device_id]} and {address}; "
                "remove the wrong line"
            )
        addresses[device_id] = address
    devices = []
    for offset, device_id in enumerate(device_ids):
        if not addresses.get(device_id):
            raise UsageError(
                f"{source}: no line address_{device_id}= for device {device_id}, which must have a NIC "
                f"address to talk to other ranks; set one with hccn_tool -i {device_id} -ip -s address "
                "ADDRESS netmask NETMASK, or give a table with --rank_table"
            )
        devices.append(Device(device_id, addresses[device_id], first_rank + offset))
    return RankTable(servers=(Server(server_id, tuple(devices), (server_id,)),), source=source)


def of_servers(configurations: Sequence[Tuple[str, str]], source: str, chip: Chip = ATLAS_910) -> RankTable:
    """The common table of several servers, ranks numbered in their order.

    Args:
        configurations: id of a server, and the path of its /etc/hccn.conf.
        source: what errors call the table.
        chip: the kind of NPU of the servers.

    Raises:
        UsageError: a file cannot be read, or what is in it makes no table.
    """
    servers: List[Server] = []
    rank = 0
    for server_id, path in configurations:
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise UsageError(f"{path} of server {server_id} cannot be read: {reason}") from error
        ids = sorted({int(number) for number in re.findall(r"^[ \t]*address_(\d+)", text, re.MULTILINE)})
        part = from_hccn_conf(text, ids, server_id, first_rank=rank, source=path)
        servers.extend(part.servers)
        rank += len(ids)
    table = RankTable(servers=tuple(servers), source=source)
    table.check(rank, chip)
    return table
