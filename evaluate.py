"""Evaluate checkpoints of a DenseNet. See `python evaluate.py --help`."""

import sys

from densenet_keras.commands import main as cli
from densenet_keras.settings import config

if __name__ == "__main__":
    sys.exit(cli.main(config.EVALUATE))
