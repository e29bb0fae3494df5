"""What an Ascend host shows of its devices from outside a run: npu-smi, the libraries' logs, versions."""

from __future__ import annotations

import glob
import os
import re
import subprocess
from typing import Any, Dict, Iterable, List, Mapping

from densenet_keras.backends.ascend import chips

TOOL = "npu-smi"
_TOOL_SECONDS = 20.0

# Where CANN and the driver say what they are.
_VERSION_FILES = (
    "/usr/local/Ascend/driver/version.info",
    "/usr/local/Ascend/firmware/version.info",
    "/usr/local/Ascend/ascend-toolkit/latest/*/ascend_toolkit_install.info",
    "/usr/local/Ascend/tfplugin/latest/*/ascend_tfplugin_install.info",
    "/usr/local/Ascend/tfplugin/latest/version.cfg",
)
_MOST_BYTES = 4000

# A device has two rows in `npu-smi info`: number and name, then chip, bus and use, HBM last. Where a package
# has two dies (Atlas A3) the second row has the number of the device, after that of the chip.
_NAME_ROW = re.compile(r"\|\s*(\d+)\s+(\d{3}\w*|Ascend\S*)\s*\|")
_USE_ROW = re.compile(r"\|\s*\d+(?:\s+(\d+))?\s*\|[^|]*\|.*?(\d+)\s*/\s*(\d+)\s*\|\s*$")


def memory_mb(table: str) -> Dict[str, int]:
    """Used high-bandwidth memory in MB by device number, as `npu-smi info` prints it in `table`."""
    found: Dict[str, int] = {}
    device = ""
    for line in table.splitlines():
        name, use = _NAME_ROW.match(line), _USE_ROW.match(line)
        if name:
            device = name.group(1)
        elif use and device:
            found[use.group(1) or device] = int(use.group(2))
            device = ""
    return found


def kinds(table: str) -> List[str]:
    """What `npu-smi info` calls the devices, such as 910A, each name once."""
    found = [name.group(2) for name in map(_NAME_ROW.match, table.splitlines()) if name]
    return sorted(set(found))


def kind(names: List[str]) -> chips.Chip:
    """The kind of NPU that has these names."""
    if all("910B" in name for name in names):
        return chips.ATLAS_A2
    return chips.ATLAS_A3 if names == ["Ascend910"] else chips.ATLAS_910


def kinds_here() -> List[str]:
    """As `kinds`, of this machine; empty where npu-smi does not say it."""
    return kinds(_said(TOOL, "info"))


def sample() -> Dict[str, Any]:
    """The memory that each device uses now, in MB; nothing where npu-smi does not say it."""
    return dict(memory_mb(_said(TOOL, "info")))


def machine(environ: Mapping[str, str]) -> Dict[str, Any]:
    """Versions of the adapter's surroundings, and the devices."""
    texts = {path: _start(path) for pattern in _VERSION_FILES for path in sorted(glob.glob(pattern))}
    named = {name: value for name, value in environ.items() if re.match(r"(ASCEND|HCCL|GE)_", name)}
    chip = chips.found()
    return {
        "npu": chip.title if chip else "not seen on the PCI bus",
        "version_files": texts,
        "environment": named,
        TOOL: _said(TOOL, "info"),
    }


def environment(folder: str) -> Dict[str, str]:
    """Makes the libraries of a run write their logs, in some detail, into `folder`."""
    return {"ASCEND_GLOBAL_LOG_LEVEL": "1", "ASCEND_PROCESS_LOG_PATH": os.path.abspath(folder)}


def logged(folder: str, words: str, most: int = 4) -> List[str]:
    """The first lines of the logs (*.log) under `folder` that have `words` in them."""
    found: List[str] = []
    for path in sorted(_files(folder)):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if words in line:
                    found.append(line.strip()[:300])
                    if len(found) == most:
                        return found
    return found


def _files(folder: str) -> Iterable[str]:
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".log"):
                yield os.path.join(parent, name)


def _start(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _said(*command: str) -> str:
    """What a command prints; empty where it is not there or fails."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_TOOL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
