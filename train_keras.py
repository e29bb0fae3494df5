"""Train DenseNet on TFRecords. See `python train_keras.py --help`."""

import sys

from densenet_keras.commands import main as cli
from densenet_keras.settings import config

if __name__ == "__main__":
    sys.exit(cli.main(config.TRAIN))
