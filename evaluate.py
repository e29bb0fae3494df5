"""Evaluate checkpoints of a DenseNet. See `python evaluate.py --help`."""

import sys

from densenet_keras.commands import start

if __name__ == "__main__":
    sys.exit(start.script("evaluate"))
