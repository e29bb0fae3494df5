"""The kinds of NPU that the adapter for TensorFlow 1.15 runs on, and which of them this machine has.

Sources: docs/ascend.md [T1, T4, H1, H2, P1].
"""

from __future__ import annotations

import contextlib
import functools
import os
from dataclasses import dataclass, replace
from typing import Dict, FrozenSet, List, Optional, Tuple

from densenet_keras.settings.config import Config

_GIB = 1024**3
_PCI_DEVICES = "/sys/bus/pci/devices"
_VENDOR = "0x19e5"  # Huawei


@dataclass(frozen=True)
class Chip:
    """What differs from one kind of NPU to another.

    Attributes:
        name: value of --npu.
        pci_device: its number on the PCI bus.
        devices_per_server: the most that a server has; they are numbered from 0.
        most_in_cluster: devices that each of several servers may bring.
        counts: how many of one server may communicate.
        networks: devices that reach one another, where not all do.
        table_versions: rank tables that its HCCL reads, the first is written.
        needs_addresses: whether devices of a single server must have NIC addresses in the table.
        saturates: whether an overflow gives the largest number, instead of Inf or NaN.
        has_float32_convolutions: whether its matrix unit computes in float32.
        has_bfloat16: whether it computes in bfloat16.
        exec_timeout_seconds: what HCCL_EXEC_TIMEOUT may be; 0 is no limit, where it may be that.
        memory_bytes: what feature maps and variables may take together.
    """

    name: str
    title: str
    pci_device: str
    devices_per_server: int
    most_in_cluster: int
    counts: Tuple[int, ...]
    networks: Tuple[FrozenSet[int], ...]
    table_versions: Tuple[str, ...]
    needs_addresses: bool
    saturates: bool
    has_float32_convolutions: bool
    has_bfloat16: bool
    exec_timeout_seconds: Tuple[int, int]
    memory_bytes: int

    def why_not_together(self, device_ids: List[int], servers: int = 1) -> str:
        """Why these devices of one of so many servers cannot communicate; empty if they can."""
        count = len(device_ids)
        if self.counts and count not in self.counts:
            shown = ", ".join(map(str, self.counts[:-1]))
            last = self.counts[-1]
            return f"{count} devices; the {self.name} communicates over {shown} or {last} of a server"
        if servers > 1 and count > self.most_in_cluster:
            return f"{count} devices; each of several servers may bring 1 to {self.most_in_cluster}"
        crossing = not any(network.issuperset(device_ids) for network in self.networks)
        if self.networks and crossing and 1 < count < self.counts[-1]:
            return (
                f"devices {sorted(device_ids)} lie in both networks of the server; take {count} of "
                "0 to 3, or of 4 to 7"
            )
        return ""


ATLAS_910 = Chip(
    name="910",
    title="Ascend 910",
    pci_device="0xd801",
    devices_per_server=8,
    most_in_cluster=8,
    counts=(1, 2, 4, 8),
    # Devices 0 to 3 and 4 to 7 are separate networks inside a server.
    networks=(frozenset(range(4)), frozenset(range(4, 8))),
    table_versions=("1.0",),
    needs_addresses=True,
    saturates=True,
    has_float32_convolutions=False,
    has_bfloat16=False,
    exec_timeout_seconds=(1, 17340),
    memory_bytes=31 * _GIB,
)
ATLAS_A2 = Chip(
    name="910b",
    title="Atlas A2 (Ascend 910B)",
    pci_device="0xd802",
    devices_per_server=16,
    most_in_cluster=8,
    counts=(),
    networks=(),
    table_versions=("1.0", "1.2"),
    needs_addresses=False,
    saturates=False,
    has_float32_convolutions=True,
    has_bfloat16=True,
    exec_timeout_seconds=(0, 2**31 - 1),
    memory_bytes=63 * _GIB,  # of 64; the 910B4 has half of that
)
# Two dies a package, each a device of its own; for all that is said here a die is as a 910B.
ATLAS_A3 = replace(
    ATLAS_A2, name="910c", title="Atlas A3 (Ascend 910C)", pci_device="0xd803", most_in_cluster=16
)
CHIPS: Dict[str, Chip] = {chip.name: chip for chip in (ATLAS_910, ATLAS_A2, ATLAS_A3)}


def of(config: Config) -> Chip:
    """The kind that --npu names; with auto the one in this machine, or the 910 where none is seen."""
    if config.ascend.npu != "auto":
        return CHIPS[config.ascend.npu]
    return found() or ATLAS_910


@functools.lru_cache(maxsize=None)
def found(pci_devices: str = _PCI_DEVICES) -> Optional[Chip]:
    """The kind of NPU on this machine's PCI bus, which a container sees as well; None if there is none.

    Only sysfs is read: no driver, adapter or tool is needed.
    """
    numbers = set()
    with contextlib.suppress(OSError):
        for device in os.listdir(pci_devices):
            folder = os.path.join(pci_devices, device)
            with contextlib.suppress(OSError, UnicodeDecodeError):
                if _word(os.path.join(folder, "vendor")) == _VENDOR:
                    numbers.add(_word(os.path.join(folder, "device")))
    return next((chip for chip in CHIPS.values() if chip.pci_device in numbers), None)


def _word(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read(16).strip().lower()
