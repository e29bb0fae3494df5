#!/usr/bin/env python3
"""Writes the arrays of a Torch file (.pth, .pt, .tar) to a .npz, for `python -m densenet_keras import`.

    python scripts/torch_to_npz.py densenet121.pth weights.npz

Runs where torch is installed, which may be another machine; it needs nothing of this project. torch.load is
told to take weights only, so that no code in the file runs (torch 1.13 or newer; older ones are refused).
"""

import argparse
import os
import sys

# Where training programs put the state of the model, the averaged one first.
WRAPPERS = ("model_ema", "state_dict_ema", "state_dict", "model_state_dict", "model", "net")


def load(path):
    """The file's content, with nothing but tensors and containers unpickled."""
    try:
        import torch
    except ImportError:
        sys.exit("error: torch is not installed here; run this where it is, and copy the .npz over")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except TypeError:
        sys.exit("error: this torch would run code in the file; take 1.13 or newer")
    except Exception as error:  # torch raises what the file makes it raise
        sys.exit(
            f"error: {path} holds more than arrays, or is damaged ({type(error).__name__}); save the state "
            "alone: torch.save(model.state_dict(), 'weights.pth')"
        )


def state_of(content, path, key=""):
    """The dictionary of tensors in what was loaded, and the key it was found under."""
    if not isinstance(content, dict):
        sys.exit(
            f"error: {path} holds a {type(content).__name__}, not a dictionary of arrays; save "
            "model.state_dict()"
        )
    if key:
        if key not in content:
            sys.exit(f"error: --key {key}: {path} holds {', '.join(map(str, content))}")
        return state_of(content[key], path)[0], key
    if any(hasattr(value, "numpy") for value in content.values()):
        return content, ""
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            return content[wrapper], wrapper
    sys.exit(f"error: {path} holds no arrays but {', '.join(map(str, content))}; name the one with --key KEY")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="file of torch.save: a state, or a checkpoint that holds one")
    parser.add_argument("npz", help="file to write")
    parser.add_argument("--key", default="", help="where in a checkpoint the state is; default: looked for")
    arguments = parser.parse_args()
    if not os.path.isfile(arguments.file):
        sys.exit(f"error: {arguments.file} does not exist")
    state, key = state_of(load(arguments.file), arguments.file, arguments.key)
    import numpy as np

    arrays = {name: tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
              for name, tensor in state.items() if hasattr(tensor, "numpy")}  # fmt: skip
    temporary = arguments.npz + ".new.npz"
    np.savez(temporary, **arrays)
    os.replace(temporary, arguments.npz)
    where = f" under {key}" if key else ""
    print(f"{arguments.npz}: {len(arrays)} arrays of {arguments.file}{where}")


if __name__ == "__main__":
    main()
