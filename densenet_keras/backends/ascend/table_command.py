"""`python -m densenet_keras rank_table`: the rank table of several Ascend servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

from densenet_keras.backends.ascend import chips, rank_table
from densenet_keras.errors import EXIT_DONE, UsageError
from densenet_keras.settings.setting import Rule, flag

EXAMPLE = "table.json 10.0.0.1=node1.conf 10.0.0.2=node2.conf"


@dataclass(frozen=True)
class Settings:
    """Rank table: servers and their devices.

    Writes the common rank table of several servers from the NIC configuration (/etc/hccn.conf) of each.
    """

    table: str = flag("", "file to write", positional=True, metavar="TABLE")
    servers: Tuple[str, ...] = flag(
        (),
        "address of each server and a copy of its /etc/hccn.conf, in the order of their ranks",
        positional=True,
        metavar="SERVER=HCCN_CONF",
        rule=Rule(lambda text: "=" in text, "must be SERVER=HCCN_CONF, such as 10.0.0.1=node1.conf"),
    )
    npu: str = flag(
        "910",
        "kind of NPU in the servers: 910, 910b (Atlas A2) or 910c (Atlas A3)",
        choices=("910", "910b", "910c"),
    )


def run(settings: Settings) -> int:
    """Writes the table; returns the exit code."""
    if not settings.servers:
        raise UsageError("SERVER=HCCN_CONF is missing: give each server with a copy of its /etc/hccn.conf")
    servers = [tuple(text.split("=", 1)) for text in settings.servers]
    chip = chips.CHIPS[settings.npu]
    table = rank_table.of_servers(servers, settings.table, chip)  # type: ignore[arg-type]
    rank_table.write(table, settings.table)
    ranks = sum(len(server.devices) for server in table.servers)
    print(f"{settings.table}: {ranks} ranks on {len(servers)} servers")
    return EXIT_DONE
