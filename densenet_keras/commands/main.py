"""From a command line to a resolved configuration, to a run, to an exit code; without TensorFlow.

What only a run needs is imported where one begins: help and refused flags come at once.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import os
import signal
import sys
from typing import Any, Callable, Dict, List, Mapping, Optional

import densenet_keras
from densenet_keras.commands import start
from densenet_keras.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, RunError, UsageError
from densenet_keras.settings import arguments, programs
from densenet_keras.settings.config import Config

# Commands of `python -m densenet_keras` beside train, evaluate and finetune; see `programs.Tool`.
_TOOLS = {
    "check": programs.Tool("commands.check", "what is wrong with a data set, record by record"),
    "prepare": programs.Tool("commands.prepare", "pictures to a data set: TFRecord shards, labels, an index"),
    "import": programs.Tool("commands.import_weights", "a run folder from weights of other programs"),
    "predict": programs.Tool("commands.predict", "what pictures show, by a trained network"),
    "export": programs.Tool(
        "commands.export", "a trained network as SavedModel, ONNX, TFLite, h5 and others"
    ),
    "verify": programs.Tool("commands.verify", "which checkpoints of a run are whole"),
    "confirm": programs.Tool(
        "commands.confirm", "what must hold on a device, tried and measured in one file"
    ),
    "completion": programs.Tool("commands.completion", "a script for the tab key of bash or zsh"),
}

# Of a disk that takes no more, where nothing nearer to it had better words.
_FULL = (errno.ENOSPC, errno.EDQUOT)

# What a rank runs. Not by -m, which imports from the current folder first: a socket.py there would run.
RANK_COMMAND = [
    sys.executable, "-c",
    "import sys; del sys.path[0]; from densenet_keras.commands.worker import main; main()",
]  # fmt: skip


def main(command: str) -> int:
    """Runs `command` with the arguments of this process; returns the exit code."""
    return _reported(lambda: _main(command, sys.argv[1:]))


def run_command(argv: List[str]) -> int:
    """Runs `python -m densenet_keras` with `argv`, a command's name first; returns the exit code."""
    return _reported(lambda: _run_command(argv))


def tools() -> Dict[str, programs.Tool]:
    """All commands beside train, evaluate and finetune, by name."""
    from densenet_keras import backends

    return {**_TOOLS, **backends.tools()}


def _run_command(argv: List[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "--help_all"):
        print(_overview())
        return EXIT_DONE
    if argv[0] == "--version":
        print(f"densenet_keras {densenet_keras.__version__}")
        return EXIT_DONE
    name, rest = argv[0], argv[1:]
    if name in programs.SCRIPTS:
        return _main(name, rest)
    known = tools()
    if name not in known:
        close = difflib.get_close_matches(name, [*programs.SCRIPTS, *known], n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise UsageError(f"unknown command {name}{meant} python -m densenet_keras lists all")
    tool: Any = importlib.import_module(f"densenet_keras.{known[name].module}")
    code: int = tool.run(arguments.parse_tool(name, tool.Settings, tool.EXAMPLE, rest))
    return code


def _overview() -> str:
    lines = ["usage: python -m densenet_keras COMMAND [--flag value] ...", ""]
    for name, script in programs.SCRIPTS.items():
        lines.append(f"  {name:<12} as python {script}")
    lines += [f"  {name:<12} {tool.purpose}" for name, tool in tools().items()]
    return "\n".join([*lines, "", "python -m densenet_keras COMMAND --help explains each."])


def _reported(work: Callable[[], int]) -> int:
    """The exit code of `work`; what it cannot do is said on stderr."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # of the scripts; from now on there is work to end
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _open_closed_streams()
    try:
        _check_current_folder()
        try:
            return work()
        finally:
            sys.stdout.flush()  # at exit it would be too late for words and for an exit code of ours
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n")  # in one piece: ranks of mpirun say it together
        return EXIT_USAGE
    except RunError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of the output, such as head, has enough
        _discard_stdout()
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _discard_stdout()
        where = error.filename or "the output"
        sys.stderr.write(
            f"error: {where} cannot be written: {error.strerror}; make room or choose another place\n"
        )
        return EXIT_FAILED


def _discard_stdout() -> None:
    """What stdout still holds leads nowhere, or Python would try again at its end and say so."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_current_folder() -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError(
            f"the current folder cannot be entered any more ({error.strerror}); change to one that exists"
        ) from error


def _main(command: str, argv: List[str]) -> int:
    config = parse(command, argv, os.environ)
    for package in ("numpy", "tqdm", "tensorflow"):
        start.require(package)
    from densenet_keras.commands import preflight

    preflight.check(config, os.environ)
    if config.device.dry_run:
        from densenet_keras.commands import dry_run  # builds the graph, so it needs TensorFlow

        return dry_run.run(config, os.environ)
    return _run(config)


def _run(config: Config) -> int:
    """On all ranks, or as the one rank that somebody else started this process as."""
    from densenet_keras import backends
    from densenet_keras.checkpoints import run_folder
    from densenet_keras.launch import folder_lock, launcher
    from densenet_keras.topology import Topology, adopt_rank_size, in_place, refuse_foreign_launcher

    config = adopt_rank_size(config, os.environ)
    refuse_foreign_launcher(os.environ)
    with contextlib.ExitStack() as stack:
        starts_here = not in_place(os.environ)
        # Of several servers each starts its own ranks; the one with rank 0 holds the folder for all.
        if starts_here:
            is_primary = 0 in backends.host(config).ranks_here(config, os.environ)
        else:
            is_primary = Topology.from_environment(os.environ, config).is_primary
        if is_primary:  # an evaluation too leaves its settings, logs and states of ranks there
            stack.enter_context(folder_lock.held(config.run.log_dir))
        if starts_here:
            if sys.stderr.isatty():  # somebody waits, and the first words of the ranks take seconds
                launcher.say("checked; loading TensorFlow")
            return launcher.launch(config, command=RANK_COMMAND)
        if is_primary:
            run_folder.write_request(config)
            if config.device.max_restarts:
                launcher.say("note: --max_restarts is not used: this command starts no ranks, it is one")
        from densenet_keras.commands import worker  # what a rank needs, the launcher does not

        return worker.run_configuration(config)


def _open_closed_streams() -> None:
    """Standard streams that this process was started without lead nowhere, instead of to its next files."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for good


def parse(command: str, argv: List[str], environ: Optional[Mapping[str, str]] = None) -> Config:
    """The configuration that `argv` asks for: validated, and with nothing in it left to choose.

    A flag takes precedence over --config, --config over the run.json beside the checkpoint that is evaluated
    or fine-tuned, and that before the defaults. `train_keras.py --mode evaluate` gives the command
    evaluate, and evaluate.py the mode evaluate, so that everything behind sees one way to evaluate.

    Args:
        environ: where a launcher that started this process as a rank says so.

    Raises:
        UsageError: naming flag, value, rule and remedy.
        SystemExit: after --help.
    """
    if command not in programs.SCRIPTS:
        raise UsageError(f"command {command!r}: must be one of {', '.join(programs.SCRIPTS)}")
    given = arguments.read(programs.program(command), argv)
    from densenet_keras.commands import resolution

    return resolution.resolved(command, given, environ or {})
