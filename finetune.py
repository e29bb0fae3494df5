"""Train a DenseNet from the weights of another run. See `python finetune.py --help`."""

import sys

from densenet_keras.commands import main as cli
from densenet_keras.settings import config

if __name__ == "__main__":
    sys.exit(cli.main(config.FINETUNE))
