"""Train DenseNet on TFRecords. See `python train_keras.py --help`."""

import sys

from densenet_keras import cli, config

if __name__ == "__main__":
    sys.exit(cli.main(config.TRAIN))
