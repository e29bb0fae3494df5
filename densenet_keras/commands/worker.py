"""One rank: `python -m densenet_keras.commands.worker CONFIG.json`, or in place in a process that is a rank.

The job runs in a second thread. The main thread stays out of TensorFlow, so that signals are handled
while the job sits in a session.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import faulthandler
import os
import re
import signal
import sys
import threading
import traceback
from typing import Iterator, NoReturn, Optional, Set

from densenet_keras import backends
from densenet_keras.commands import start
from densenet_keras.commands.tensorflow_import import import_tensorflow
from densenet_keras.errors import EXIT_CRASHED, EXIT_DONE, EXIT_FAILED, EXIT_USAGE, RunError, UsageError
from densenet_keras.launch import peers, rank_logs, rank_states, rendezvous
from densenet_keras.rank import Rank
from densenet_keras.settings import config
from densenet_keras.settings.config import Config
from densenet_keras.stop import PARENT, TERMINAL, StopFlag
from densenet_keras.topology import CORES, Topology, adopt_rank_size
from densenet_keras.watchdog import Watchdog, watch_parent

# Of programs, callbacks of the user's among them: the next start would end in the same way.
_MISTAKES = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, NotImplementedError,
    SyntaxError, SystemExit, TypeError, ValueError,
)  # fmt: skip
JOIN_SECONDS = 0.2
MEETING_SECONDS = 300.0
LEAVE_SECONDS = 30.0


def main() -> NoReturn:
    """The process that the launcher starts."""
    watch_parent()
    faulthandler.enable()
    start.accept_any_text()
    _leave(run(sys.argv[1]))


def run(path: str) -> int:
    """Runs this process's part of the command that the configuration file describes.

    Returns:
        Exit code: 0 done, 1 failed, 2 usage, 128 + number of the signal that stopped it.
    """
    try:
        configuration = config.load(path)
    except UsageError as error:
        return _report(error)
    return run_configuration(configuration)


def run_configuration(configuration: Config) -> int:
    """As `run`, for a configuration at hand; in the main thread."""
    stop = StopFlag()
    job = _Job(configuration, stop)
    with stop.handling_signals():
        job.start()
        while job.is_alive():
            job.join(JOIN_SECONDS)  # a signal may reach any of TensorFlow's threads, and wake none
            stop.leave_if_idle()
    if job.error is not None:
        return _report(job.error, job.log_path)
    return 128 + stop.signal if stop.is_set else EXIT_DONE


class _Job(threading.Thread):
    """The rank's work.

    Attributes:
        error: what it failed with, if it did.
        log_path: where to leave the reason for a failure; None where the launcher keeps the log.
    """

    def __init__(self, configuration: Config, stop: StopFlag) -> None:
        super().__init__(name="job", daemon=True)
        self._config, self._stop_flag = configuration, stop
        self.error: Optional[BaseException] = None
        self.log_path: Optional[str] = None

    def run(self) -> None:
        """Catches all, SystemExit from a user's callback included: the main thread reports it."""
        try:
            self._run()
        except BaseException as error:  # noqa: B036
            self.error = error

    def _run(self) -> None:
        configuration = adopt_rank_size(self._config, os.environ)
        os.environ.update(backends.host(configuration).complete_environment(configuration, os.environ))
        topology = Topology.from_environment(os.environ, configuration)
        if PARENT in os.environ:
            _write_stacks_to(rank_logs.path_of(configuration.run.log_dir, topology.rank))
        else:
            self.log_path = rank_logs.path_of(configuration.run.log_dir, topology.rank)
            with contextlib.suppress(ValueError, AttributeError, OSError):  # stderr may be no file
                faulthandler.register(signal.SIGUSR1)
        _bind_cores(os.environ.get(CORES, ""))
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # for the user's callbacks
        device = configuration.device
        watchdog = Watchdog(device.first_step_timeout_seconds, device.step_timeout_seconds)
        log_dir, speaks = configuration.run.log_dir, PARENT not in os.environ
        announcer = rank_states.Announcer(log_dir, topology.rank, watchdog, speaks=speaks)
        with contextlib.ExitStack() as stack:
            stack.enter_context(watchdog)
            stack.enter_context(announcer.announcing())
            topology = stack.enter_context(_addressed(configuration, topology, watchdog))
            if topology.size > 1:
                others = peers.Peers(log_dir, topology, announcer)
                announcer.look_by(others.look)
                watchdog.ask(others)
            backends.host(configuration).prepare_process(configuration, os.environ)
            import_tensorflow()
            from densenet_keras.commands import ranks

            is_watched = os.environ.get(TERMINAL, "") == "1" or sys.stderr.isatty()
            ranks.run(configuration, Rank(topology, self._stop_flag, watchdog, is_watched))


@contextlib.contextmanager
def _addressed(configuration: Config, topology: Topology, watchdog: Watchdog) -> Iterator[Topology]:
    """`topology` with the addresses of all ranks, where they are needed and the scheduler gave none."""
    if topology.size == 1 or topology.addresses or not backends.host(configuration).needs_addresses:
        yield topology
        return
    key = rendezvous.job_key(os.environ)
    meeting = rendezvous.Meeting(configuration.run.log_dir, key, topology.rank, topology.size)
    with contextlib.closing(meeting):
        with watchdog.phase("waiting for the other ranks", 2 * MEETING_SECONDS):
            addresses = meeting.addresses(MEETING_SECONDS)
        yield dataclasses.replace(topology, addresses=addresses)


def _write_stacks_to(log_path: str) -> None:
    """The stacks of all threads go to the log, not above the advice on the console.

    After a fatal signal, and after SIGUSR1, by which the launcher asks a rank that hangs.
    """
    with contextlib.suppress(OSError):
        file = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        faulthandler.enable(file=file)
        faulthandler.register(signal.SIGUSR1, file=file)


def _bind_cores(cores: str) -> None:
    """Keeps this thread and those it starts on the cores of a list such as 0-3,8."""
    chosen: Set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", cores):
        chosen.update(range(int(first), int(last or first) + 1))
    if chosen:
        with contextlib.suppress(OSError):  # a container may allow other cores: then as it is
            os.sched_setaffinity(0, chosen)


def _report(error: BaseException, log_path: Optional[str] = None) -> int:
    """Says what a rank failed with; returns its exit code."""
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return error.code or EXIT_DONE
    code = EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED
    if isinstance(error, (UsageError, RunError)):
        text = f"error: {error}\n"
    else:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        if PARENT in os.environ and not isinstance(error, _MISTAKES):
            code = EXIT_CRASHED
    sys.stderr.write(text)
    if log_path is not None:
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(log_path), exist_ok=True)
            with open(log_path, "a", encoding="utf-8") as file:
                file.write(text)
    return code


def _leave(code: int) -> NoReturn:
    """Ends the process without the destructors of TensorFlow, whose servers may wait for dead peers.

    After a failure nothing else runs either: it might wait for peers as well.
    """
    if code not in (EXIT_FAILED, EXIT_CRASHED):
        guard = threading.Timer(LEAVE_SECONDS, os._exit, args=[code])
        guard.daemon = True
        guard.start()
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
