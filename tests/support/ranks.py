"""Runs a function in N rank processes and brings back what each returns.

    results = run_ranks("package.module:function", size=2, arguments={"steps": 3})

The function is called in every process as function(topology, **arguments), with each rank's address in
the topology, and returns a dictionary of arrays. A rank that fails ends the others.
"""

import contextlib
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List, Optional

import numpy as np

from tests.support.paths import ROOT

_POLL_SECONDS = 0.02


class RanksFailed(AssertionError):
    """A rank exited with an error or out of time; `rank` is the first one seen."""

    def __init__(self, rank: int, reason: str, output: str) -> None:
        super().__init__(f"rank {rank} {reason}; the end of its output:\n{output[-6000:]}")
        self.rank = rank


def load_function(path: str) -> Callable[..., Any]:
    """The function that `package.module:name` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def run_ranks(
    function: str,
    size: int,
    *,
    timeout_seconds: float = 60.0,
    arguments: Optional[Dict[str, Any]] = None,
    environment: Callable[[int, int, str], Dict[str, str]] = lambda rank, size, directory: {},
) -> List[Dict[str, np.ndarray]]:
    """Results in rank order.

    Args:
        arguments: JSON values, the same for every rank.
        environment: variables of one rank from (rank, size, a folder common to the ranks).
    """
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        addresses = [stack.enter_context(_reserved_address()) for _ in range(size)] if size > 1 else []
        request = {"function": function, "addresses": addresses, "arguments": arguments or {}}
        processes = []
        outputs = []
        for rank in range(size):
            request_path = os.path.join(directory, f"request.{rank}.json")
            with open(request_path, "w", encoding="utf-8") as file:
                json.dump({**request, "rank": rank, "size": size}, file)
            outputs.append(stack.enter_context(open(os.path.join(directory, f"output.{rank}"), "wb")))
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-W", "ignore", "-m", "tests.support.ranks", request_path],
                    cwd=directory,
                    env=_environment(environment(rank, size, directory)),
                    stdout=outputs[-1],
                    stderr=subprocess.STDOUT,
                )
            )
        try:
            _wait_for_all(processes, outputs, timeout_seconds)
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
        return [dict(np.load(os.path.join(directory, f"request.{rank}.json.npz"))) for rank in range(size)]


def _environment(extra: Dict[str, str]) -> Dict[str, str]:
    path = os.pathsep.join([ROOT] + [p for p in [os.environ.get("PYTHONPATH")] if p])
    return {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "2", **extra}


def _wait_for_all(processes, outputs, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    running = dict(enumerate(processes))
    while running:
        for rank, process in list(running.items()):
            code = process.poll()
            if code is None and time.monotonic() < deadline:
                continue
            if code != 0:
                reason = f"did not end in {timeout_seconds:g} s" if code is None else f"exited with {code}"
                with open(outputs[rank].name, encoding="utf-8", errors="replace") as output:
                    raise RanksFailed(rank, reason, output.read())
            del running[rank]
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _reserved_address():
    """host:port that nobody else is given while this is open, and that a server can still bind."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"


def _main(request_path: str) -> None:
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    from densenet_keras.topology import Topology

    rank, size = request["rank"], request["size"]
    topology = Topology(rank, size, rank, size, tuple(request["addresses"]))
    result = load_function(request["function"])(topology, **request["arguments"])
    np.savez(request_path + ".npz", **{name: np.asarray(value) for name, value in result.items()})


if __name__ == "__main__":
    _main(sys.argv[1])
