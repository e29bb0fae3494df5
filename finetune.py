"""Train a DenseNet from the weights of another run. See `python finetune.py --help`."""

import sys

from densenet_keras.commands import start

if __name__ == "__main__":
    sys.exit(start.script("finetune"))
