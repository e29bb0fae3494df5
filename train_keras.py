"""Train DenseNet on TFRecords. See `python train_keras.py --help`."""

import sys

from densenet_keras.commands import start

if __name__ == "__main__":
    sys.exit(start.script("train"))
