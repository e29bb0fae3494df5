"""Train a DenseNet from the weights of another run. See `python finetune.py --help`."""

import sys

from densenet_keras import cli, config

if __name__ == "__main__":
    sys.exit(cli.main(config.FINETUNE))
