"""Train a DenseNet from the weights of another run. See `python finetune.py --help`."""

import _signal
import sys

if callable(_signal.getsignal(_signal.SIGINT)):  # ctrl-C while modules are loaded: no traceback of an import
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # until commands.main asks for it

from densenet_keras.commands import start  # noqa: E402

if __name__ == "__main__":
    sys.exit(start.script("finetune"))
