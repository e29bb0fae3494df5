"""`python -m densenet_keras COMMAND`, and the command `densenet-keras` of an installed project."""

import _signal
import sys

if callable(_signal.getsignal(_signal.SIGINT)):  # ctrl-C while modules are loaded: no traceback of an import
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # until commands.main asks for it

from densenet_keras.commands import start  # noqa: E402


def main() -> int:
    """Runs the command that this process was given; returns the exit code."""
    return start.tool(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
