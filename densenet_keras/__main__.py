"""`python -m densenet_keras COMMAND`."""

import sys

from densenet_keras.commands import main

if __name__ == "__main__":
    sys.exit(main.run_command(sys.argv[1:]))
