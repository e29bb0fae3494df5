"""`python -m densenet_keras COMMAND`, and the command `densenet-keras` of an installed project."""

import sys

from densenet_keras.commands.main import run_command


def main() -> int:
    """Runs the command that this process was given; returns the exit code."""
    return run_command(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
