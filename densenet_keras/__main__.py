"""`python -m densenet_keras COMMAND`, and the command `densenet-keras` of an installed project."""

import sys

from densenet_keras.commands import start


def main() -> int:
    """Runs the command that this process was given; returns the exit code."""
    return start.tool(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
