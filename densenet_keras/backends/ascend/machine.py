"""What this machine offers a rank: its addresses, its NPU devices, its cores."""

from __future__ import annotations

import fcntl
import glob
import os
import re
import socket
import struct
from dataclasses import dataclass, replace
from typing import List, Mapping, Tuple

from densenet_keras.errors import UsageError

# Of the runtime: leaves a process some of the devices, which then count from 0 [E2 of docs/ascend.md].
VISIBLE_DEVICES = "ASCEND_RT_VISIBLE_DEVICES"

_SIOCGIFADDR = 0x8915  # linux/sockios.h


@dataclass(frozen=True)
class Machine:
    """Facts that decide a rank's environment; tests give their own.

    `device_ids` are the chips whose device nodes exist here, which inside a container may be fewer
    than the server has; `cores` are those this process may run on, of `core_count` in the machine.
    """

    host_name: str = ""
    addresses: Tuple[str, ...] = ()
    device_ids: Tuple[int, ...] = ()
    cores: Tuple[int, ...] = ()
    core_count: int = 0

    @staticmethod
    def probe() -> Machine:
        """The machine that this process runs on."""
        return Machine(
            host_name=socket.gethostname(),
            addresses=_addresses(),
            device_ids=_device_ids("/dev"),
            cores=tuple(sorted(os.sched_getaffinity(0))),
            core_count=os.cpu_count() or 1,
        )

    def shown_to(self, environ: Mapping[str, str]) -> Machine:
        """This machine with those devices only that a process of this environment can open.

        Raises:
            UsageError: ASCEND_RT_VISIBLE_DEVICES is not a list of them.
        """
        text = environ.get(VISIBLE_DEVICES, "")
        if not text or not self.device_ids:
            return self
        listed = [int(number) for number in text.split(",") if number.isdigit()]
        count = len(self.device_ids)
        # The runtime would read it up to the first mistake.
        if len(listed) <= text.count(",") or listed != sorted(set(listed)) or listed[-1] >= count:
            raise UsageError(
                f"{VISIBLE_DEVICES}={text} must list devices of this machine, 0 to {count - 1}, in ascending "
                "order with commas; correct or unset it"
            )
        return replace(self, device_ids=tuple(self.device_ids[number] for number in listed))

    def logical_id(self, device_id: int) -> int:
        """The number under which a process here opens chip `device_id`.

        The driver counts the devices that a machine or container can see from 0; where no device node
        is seen (a plan made elsewhere), the chip's own number is taken.
        """
        if device_id in self.device_ids:
            return self.device_ids.index(device_id)
        return device_id


def _device_ids(folder: str) -> Tuple[int, ...]:
    numbers: List[int] = []
    for path in glob.glob(os.path.join(glob.escape(folder), "davinci*")):
        match = re.fullmatch(r"davinci(\d+)", os.path.basename(path))
        if match:
            numbers.append(int(match.group(1)))
    return tuple(sorted(numbers))


def _addresses() -> Tuple[str, ...]:
    """The IPv4 addresses of the network interfaces, other than loopback."""
    found: List[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:
                continue  # an interface without an address
            address = socket.inet_ntoa(answer[20:24])
            if not address.startswith("127."):
                found.append(address)
    return tuple(found)
