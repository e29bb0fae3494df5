"""Runs a function in N rank processes and brings back what each returns.

    results = run_ranks("/path/of/file.py:function", size=2, arguments={"steps": 3})

The function is called in every process as function(topology, **arguments), with each rank's address in
the topology, and returns a dictionary of arrays. A rank that fails ends the others.

Each rank is a process of its own, forked from one that has imported TensorFlow and done nothing else: to
import it anew is most of what a small test costs.
"""

import contextlib
import importlib.util
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import socket
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List, Optional

import numpy as np

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tensorflow", "pytest"])  # pytest: children import the main module


class RanksFailed(AssertionError):
    """A rank exited with an error or out of time; `rank` is the first one seen."""

    def __init__(self, rank: int, reason: str, output: str) -> None:
        super().__init__(f"rank {rank} {reason}; the end of its output:\n{output[-6000:]}")
        self.rank = rank


def load_function(path: str) -> Callable[..., Any]:
    """The function that `/path/of/file.py:name` names; functions of one file share its module."""
    file, _, name = path.rpartition(":")
    module_name = "loaded_" + pathlib.Path(file).stem
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, file)
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        spec.loader.exec_module(module)
    return getattr(sys.modules[module_name], name)


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
        arguments: the same for every rank.
        environment: variables of one rank from (rank, size, a folder common to the ranks).
    """
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        addresses = [stack.enter_context(_reserved_address()) for _ in range(size)] if size > 1 else []
        processes = [
            _PROCESSES.Process(
                target=_rank,
                args=(
                    directory, rank, size, addresses, environment(rank, size, directory), function,
                    arguments or {},
                ),
            )
            for rank in range(size)
        ]  # fmt: skip
        for process in processes:
            process.start()
        try:
            _wait_for_all(processes, directory, timeout_seconds)
        finally:
            for process in processes:
                if process.exitcode is None:
                    process.kill()
                process.join()
        return [dict(np.load(_path(directory, "result", rank) + ".npz")) for rank in range(size)]


def _path(directory: str, what: str, rank: int) -> str:
    return os.path.join(directory, f"{what}.{rank}")


def _rank(
    directory: str,
    rank: int,
    size: int,
    addresses: List[str],
    environment: Dict[str, str],
    function: str,
    arguments: Dict[str, Any],
) -> None:
    """What one process does."""
    output = os.open(_path(directory, "output", rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.chdir(directory)
    os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "2", **environment})
    # Python read its own PYTHONPATH before this process was forked.
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    from densenet_keras.topology import Topology

    topology = Topology(rank, size, rank, size, tuple(addresses))
    result = load_function(function)(topology, **arguments)
    values = {name: np.asarray(value) for name, value in result.items()}
    np.savez(_path(directory, "result", rank) + ".npz", **values)


def _wait_for_all(processes, directory: str, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    running = {process.sentinel: rank for rank, process in enumerate(processes)}
    while running:
        ended = multiprocessing.connection.wait(running, max(0.0, deadline - time.monotonic()))
        for sentinel in ended or running:
            rank = running[sentinel]
            processes[rank].join(0)
            code = processes[rank].exitcode
            if code != 0:
                reason = f"did not end in {timeout_seconds:g} s" if code is None else f"exited with {code}"
                with open(_path(directory, "output", rank), encoding="utf-8", errors="replace") as output:
                    raise RanksFailed(rank, reason, output.read())
        for sentinel in ended:
            del running[sentinel]


@contextlib.contextmanager
def _reserved_address():
    """host:port that nobody else is given while this is open, and that a server can still bind."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"
