"""Writes a state dict for torchvision's and timm's DenseNets from `export --format npz`; needs torch.

    python scripts/npz_to_torch.py densenet_npz/model.npz densenet121.pth

    model = torchvision.models.densenet121(num_classes=1000)
    model.load_state_dict(torch.load("densenet121.pth"))

Kernels are turned to Torch's axes. The epsilon is read from network.json beside the file; Torch's is 1e-5,
and the gammas make up for the difference. Neither TensorFlow nor Python 3.7 is needed.
"""

import argparse
import json
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from densenet_keras.exports.names import torch_state  # noqa: E402 - found by the line above


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("npz", help="model.npz of an export")
    parser.add_argument("pth", help="file to write")
    given = parser.parse_args()
    import torch

    with open(os.path.join(os.path.dirname(given.npz), "network.json"), encoding="utf-8") as file:
        epsilon = json.load(file)["bn_epsilon"]
    with np.load(given.npz) as arrays:
        state = torch_state(dict(arrays.items()), epsilon)
    torch.save({name: torch.from_numpy(value) for name, value in state.items()}, given.pth)
    print(f"{given.pth}: {len(state)} tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
