"""The first line of every command: a Python that lacks packages is told which, and how to get them.

Imports the standard library alone, so that it can speak where nothing else can be imported.
"""

from __future__ import annotations

import importlib.util
import io
import sys
from typing import Callable, List

from densenet_keras.errors import EXIT_USAGE, UsageError

# What has to be installed beside this project; another missing module is a mistake to be shown in full.
PACKAGES = ("numpy", "tqdm", "tensorflow", "h5py")


def script(command: str) -> int:
    """Runs train, evaluate or finetune with the arguments of this process; returns the exit code."""

    def work() -> int:
        from densenet_keras.commands import main

        return main.main(command)

    return _told(work)


def tool(argv: List[str]) -> int:
    """Runs `python -m densenet_keras` with `argv`; returns the exit code."""

    def work() -> int:
        from densenet_keras.commands import main

        return main.run_command(argv)

    return _told(work)


def require(package: str) -> None:
    """Nothing, if `package` can be imported; it is not imported, which may take seconds.

    Raises:
        UsageError: it is not there.
    """
    if importlib.util.find_spec(package) is None:
        raise UsageError(_missing(package))


def accept_any_text() -> None:
    """Lets stdout take every character: what its encoding lacks appears as an escape and ends nothing.

    A file's name may hold any bytes. Where stdout is strict (in the locale of a language) the first such name
    would end the command with its work done; stderr is never strict.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _told(work: Callable[[], int]) -> int:
    accept_any_text()
    try:
        return work()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in PACKAGES or importlib.util.find_spec(package) is not None:
            raise
        sys.stderr.write(f"error: {_missing(package)}\n")
        return EXIT_USAGE


def _missing(package: str) -> str:
    return (
        f"{sys.executable} ({sys.version.split()[0]}) has no package {package}\n"
        "run `make setup` and use .venv/bin/python, or `pip install .[cpu]` with a Python 3.7; on an Ascend "
        "host, source the vendor's environment and use its Python"
    )
