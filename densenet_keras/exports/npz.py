"""The weights alone, as NumPy arrays under our names, and the network's settings beside them."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Dict

import numpy as np
import tensorflow as tf

from densenet_keras.backends import cpu
from densenet_keras.checkpoints.run_folder import NETWORK_JSON
from densenet_keras.exports.base import Format, Pictures, Subject
from densenet_keras.network.densenet import build_densenet
from densenet_keras.settings.config import ModelConfig

FILE = "model.npz"
SETTINGS_FILE = NETWORK_JSON


def write(folder: str, subject: Subject) -> None:
    """`FILE`, and `SETTINGS_FILE` with what no array tells."""
    names = [variable.op.name for variable in subject.model.weights]
    np.savez(os.path.join(folder, FILE), **dict(zip(names, subject.model.get_weights())))
    with open(os.path.join(folder, SETTINGS_FILE), "w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(subject.network), file, indent=2)


def read(folder: str, pictures: Pictures) -> Dict[str, np.ndarray]:
    """Logits of the network that the settings describe, with the arrays as its variables."""
    with open(os.path.join(folder, SETTINGS_FILE), encoding="utf-8") as file:
        network = ModelConfig(**json.load(file))
    with tf.Graph().as_default() as graph, cpu.session(graph):
        tf.keras.backend.set_learning_phase(0)
        model = build_densenet(network)
        with np.load(os.path.join(folder, FILE)) as arrays:
            model.set_weights([arrays[variable.op.name] for variable in model.weights])
        return {"the arrays": model.predict(pictures.normalised)}


def usage(subject: Subject) -> str:
    """How to load it."""
    return f"""`{FILE}` holds every variable of the network as a float32 array under its name here, such as
`block1/layer1/conv1/kernel`; kernels are [height, width, input, output]. `{SETTINGS_FILE}` holds the settings
of the network, `bn_epsilon` among them.

```python
import numpy

arrays = numpy.load("{FILE}")
print(arrays["linear/bias"].shape)
```

For Torch, `scripts/npz_to_torch.py` of the project writes a state dict that the DenseNets of torchvision and
timm load:

```bash
python scripts/npz_to_torch.py {FILE} densenet.pth
```
"""


FORMAT = Format(write, read, usage)
