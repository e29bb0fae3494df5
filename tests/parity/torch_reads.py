"""Logits that torchvision's DenseNet gives with a state dict of `npz_to_torch.py`: for a Python with torch.

    python tests/parity/torch_reads.py model.pth pictures.npy logits.npy

The sizes of the network follow from the tensors.
"""

import re
import sys

import numpy as np
import torch
import torchvision

state_path, pictures, logits = sys.argv[1:]
state = torch.load(state_path)
layers = {}
for name in state:
    found = re.match(r"features\.denseblock(\d+)\.denselayer(\d+)\.", name)
    if found:
        block, layer = map(int, found.groups())
        layers[block] = max(layer, layers.get(block, 0))
growth_rate, width = state["features.denseblock1.denselayer1.conv2.weight"].shape[:2]
model = torchvision.models.DenseNet(
    growth_rate=growth_rate,
    block_config=tuple(layers[block] for block in sorted(layers)),
    num_init_features=state["features.conv0.weight"].shape[0],
    bn_size=width // growth_rate,
    num_classes=state["classifier.bias"].shape[0],
)
model.load_state_dict(state)
model.eval()
with torch.no_grad():
    np.save(logits, model(torch.from_numpy(np.load(pictures).transpose(0, 3, 1, 2).copy())).numpy())
