"""`confirm` on simulated devices: what it needs around it, and what it finds."""

import contextlib
import json
import os

from densenet_keras.backends.ascend import graph_check
from densenet_keras.launch.launcher import reserved_ports
from tests.support import commands, records
from tests.support.paths import ASCEND, ROOT

FOR_SEVERAL = {"ranks", "split", "statistics"}  # lines that one rank cannot confirm
OPERATIONS = os.path.join("framework", "built-in", "tensorflow", "npu_supported_ops.json")


def furnish(folder, ranks, train):
    """Data, a rank table, the device's list of operations, one that lacks some, and the folder of chips."""
    records.write_noise(folder / "data", train=train, validation=21)
    devices = [
        {"device_id": str(rank), "device_ip": f"192.168.1.{10 + rank}", "rank_id": str(rank)}
        for rank in range(ranks)
    ]
    servers = [{"server_id": "127.0.0.1", "device": devices}]
    (folder / "table.json").write_text(json.dumps(
        {"status": "completed", "version": "1.0", "server_count": "1", "server_list": servers}
    ))  # fmt: skip
    for name, lacking in (("opp", ()), ("poor", ("Conv2D",))):
        path = folder / name / OPERATIONS
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({op: {} for op in graph_check._SUPPORTED if op not in lacking}))
    (folder / "chips").mkdir()
    return folder


@contextlib.contextmanager
def started(place, log_dir, ranks):
    """Arguments and environment of confirm on simulated devices."""
    environment = {
        "PYTHONPATH": os.pathsep.join([ROOT, ASCEND]),
        "PATH": os.pathsep.join([os.path.join(ASCEND, "bin"), os.environ["PATH"]]),
        "ASCEND_OPP_PATH": str(place / "opp"),
        "SIMULATED_NPU_CHIPS": str(place / "chips"),
    }
    arguments = [
        "confirm", "--backend", "ascend", "--rank_size", ranks, "--log_dir", log_dir,
        "--data_dir", place / "data", "--model", "densenet_tiny", "--batch_size", 2, "--batch_sizes", 3,
        "--speed_steps", 10, "--run_flag", "intra_op_threads=1",
    ]  # fmt: skip
    with reserved_ports(ranks if ranks > 1 else 0) as ports:
        if ranks > 1:
            environment["SIMULATED_NPU_ADDRESSES"] = ",".join(f"127.0.0.1:{port}" for port in ports)
            environment["RANK_TABLE_FILE"] = str(place / "table.json")
        yield arguments, environment


def read(log_dir):
    return json.loads((log_dir / "confirmation.json").read_text())


def confirm(place, log_dir, ranks, *more, code=0, timeout_seconds=580, **environment):
    """What confirm prints, and its file."""
    with started(place, log_dir, ranks) as (arguments, usual):
        usual.update(environment)
        output = commands.run(
            "-m", "densenet_keras", *arguments, *more, code=code, timeout_seconds=timeout_seconds,
            cwd=str(place), **usual
        )  # fmt: skip
    return output, read(log_dir)


def verdicts(file):
    return {name: line["verdict"] for name, line in file["lines"].items()}
