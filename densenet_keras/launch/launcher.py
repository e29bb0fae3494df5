"""From a resolved configuration to running ranks and one exit code; without TensorFlow.

The environment of every rank is a pure function (`rank_environments`); `supervisor` starts the
processes and watches them; `report` says what went wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from typing import Dict, Iterator, List, Mapping, Optional, Sequence

import densenet_keras
from densenet_keras import backends, terminal
from densenet_keras.checkpoints import run_folder
from densenet_keras.errors import (
    EXIT_CRASHED,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_HUNG,
    EXIT_USAGE,
    RunError,
)
from densenet_keras.launch.diagnosis import diagnose, first_error
from densenet_keras.launch.restarts import Restarts
from densenet_keras.launch.supervisor import Failure, Outcome, RankStart, say, supervise
from densenet_keras.settings.config import Config
from densenet_keras.stop import PARENT, TERMINAL
from densenet_keras.topology import LOCAL_RANK, LOCAL_SIZE, Topology

GRACE_SECONDS = 60.0  # from a request to stop to the end by force: one session.run and one save
LOOPBACK = "127.0.0.1"


def launch(config: Config, *, command: Sequence[str], grace_seconds: float = GRACE_SECONDS) -> int:
    """Starts and supervises the ranks of this host; returns the exit code of the whole.

    After an accident they are started again, see `restarts`. The configuration is left in the run folder.

    Args:
        config: resolved and validated.
        command: what each rank runs; the path of the configuration is appended.
        grace_seconds: how long ranks that were asked to stop may take at least.

    Raises:
        UsageError: the run folder cannot be written, or the environment contradicts the settings.
        RunError: a process could not be started.
    """
    here = backends.host(config).ranks_here(config, os.environ)
    restarts = Restarts(config, len(here), os.environ)
    pause_seconds: Optional[float] = 0.0
    while pause_seconds is not None:
        outcome = _run_once(config, command, grace_seconds, pause_seconds)
        code = report(outcome)
        failure = outcome.failure
        cause = f"rank {failure.rank} failed: {_cause(failure.code)}" if failure is not None else ""
        pause_seconds = restarts.pause_after(outcome, cause)
    return code


def _run_once(config: Config, command: Sequence[str], grace_seconds: float, pause_seconds: float) -> Outcome:
    """All ranks of this host, from their start to the end of the last."""
    path = run_folder.write_request(config)
    ported = config.device.rank_size > 1 and backends.host(config).needs_addresses
    with reserved_ports(config.device.rank_size if ported else 0) as ports:
        addresses = [f"{LOOPBACK}:{port}" for port in ports]
        environments = rank_environments(config, os.environ, addresses)
        starts = [_start(config, environment) for environment in environments]
        if len(starts) > 1:
            say(f"starting {len(starts)} ranks; their logs are in {config.run.log_dir}/rank_logs")
        return supervise([*command, path], starts, config.run.log_dir, grace_seconds, pause_seconds)


@contextlib.contextmanager
def reserved_ports(count: int) -> Iterator[List[int]]:
    """Free ports that nobody else is given inside the body, yet TensorFlow's servers can bind.

    The sockets are bound, never listening: with SO_REUSEADDR on both sides a second bind succeeds,
    while the kernel hands the port to nobody who asks for any.
    """
    with contextlib.ExitStack() as stack:
        ports: List[int] = []
        for _ in range(count):
            try:
                reserved = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                reserved.bind(("", 0))
            except OSError as error:
                raise RunError(
                    f"{count} ranks on this host need a port each, and the system gives {len(ports)} "
                    f"({error.strerror}); lower --rank_size, or raise the limit of open files (ulimit -n)"
                ) from error
            ports.append(reserved.getsockname()[1])
        yield ports


def rank_environments(
    config: Config, base_env: Mapping[str, str], addresses: Sequence[str]
) -> List[Dict[str, str]]:
    """The whole environment of each rank to start on this host, in rank order.

    Args:
        base_env: what the ranks inherit.
        addresses: host:port of every rank, for backends that need addresses; empty for one rank.
    """
    additions = backends.host(config).rank_environments(config, base_env)
    if additions is None:
        additions = _tf_configs(addresses) if addresses else [{}]
    root = os.path.dirname(os.path.dirname(os.path.abspath(densenet_keras.__file__)))
    search_path = [root, *filter(None, [base_env.get("PYTHONPATH")])]
    common = {
        PARENT: str(os.getpid()),
        LOCAL_SIZE: str(len(additions)),
        "PYTHONPATH": os.pathsep.join(search_path),
        "PYTHONUNBUFFERED": "1",  # a killed rank leaves a complete log
    }
    return [
        {**base_env, **common, LOCAL_RANK: str(local_rank), **added}
        for local_rank, added in enumerate(additions)
    ]


def _tf_configs(addresses: Sequence[str]) -> List[Dict[str, str]]:
    cluster = {"worker": list(addresses)}
    tasks = [{"type": "worker", "index": rank} for rank in range(len(addresses))]
    return [{"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})} for task in tasks]


def _start(config: Config, environment: Dict[str, str]) -> RankStart:
    """Adds what the rank must know about the terminal behind its pipe."""
    on_terminal = sys.stderr.isatty()
    environment = {**environment, TERMINAL: str(int(on_terminal))}
    if on_terminal:  # the bar takes its width from the device, where that can be opened
        with contextlib.suppress(OSError, ValueError):
            environment[terminal.DEVICE] = os.ttyname(sys.stderr.fileno())
        size = shutil.get_terminal_size()
        environment.setdefault("COLUMNS", str(size.columns))
        environment.setdefault("LINES", str(size.lines))
    return RankStart(Topology.from_environment(environment, config).rank, environment)


def report(outcome: Outcome) -> int:
    """Says on stderr why the ranks did not finish, if so; returns the exit code of the command."""
    if outcome.failure is not None:
        _report_failure(outcome, outcome.failure)
        return EXIT_USAGE if outcome.failure.code == EXIT_USAGE else EXIT_FAILED
    if outcome.killed:
        ranks = ", ".join(map(str, outcome.killed))
        say(f"killed because they did not stop: ranks {ranks}; what followed the last checkpoint is lost")
    if outcome.stop_signal:
        return 128 + outcome.stop_signal
    return EXIT_DONE


def _report_failure(outcome: Outcome, failure: Failure) -> None:
    rank, code = failure.rank, failure.code
    shown_rank = min(outcome.logs)  # its output is on the console already
    if rank == shown_rank and code == EXIT_USAGE:
        return
    log = outcome.logs[rank]
    first = " first" if len(outcome.logs) > 1 else ""
    say(f"rank {rank} failed{first}: {_cause(code)}")
    for line in failure.story:
        say(line)
    error = first_error(log.text()) if code == -signal.SIGABRT else ""
    if error:
        say(f"a library ended it; the first error in its log: {error}")
    tail = log.tail() if len(outcome.logs) > 1 else []
    if tail:
        say(f"the end of its log {log.path}:")
        for line in tail:
            say(f"  | {line}")
    else:
        say(f"its log: {log.path}")
    for other in [rank, *(other for other in outcome.logs if other != rank)]:
        advice = diagnose(outcome.logs[other].text())
        if advice:
            say(advice if other == rank else f"from the log of rank {other}: {advice}")
            break


def _cause(code: int) -> str:
    if code == EXIT_HUNG:
        return "it made no progress"
    if code == EXIT_CRASHED:
        code = EXIT_FAILED  # as it would be without a launcher
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = "no name"
    hint = ""
    if -code == signal.SIGKILL:
        hint = "; unless somebody sent it, the machine ran out of memory: see dmesg, lower --batch_size"
    return f"killed by signal {-code} ({name}){hint}"
