"""Our training step of DenseNet-121 against a plain DenseNet-121 in PyTorch.

    python3 -m venv pytorch && pytorch/bin/pip install torch --index-url https://download.pytorch.org/whl/cpu
    python benchmarks/pytorch_step.py --pytorch pytorch/bin/python --image_size 224 --batch_size 16

PyTorch has an environment of its own, with its own Python; nothing else here needs it. Each side runs in a
process of its own, in blocks that take turns. Equal on both sides: image size, batch, classes, float32,
threads, SGD with Nesterov momentum, one batch that stays in memory, channels last.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, Callable, Dict

import side_by_side

BLOCKS, GROWTH_RATE, BOTTLENECK, STEM = (6, 12, 24, 16), 32, 4, 64  # DenseNet paper, table 1
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
NUM_CLASSES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pytorch", required=True, help="the Python of an environment with PyTorch")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--blocks", type=int, default=3, help="counted blocks of each side")
    parser.add_argument("--steps", type=int, default=1, help="steps in a block")
    parser.add_argument("--worker", choices=("ours", "pytorch"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker == "pytorch":
        side_by_side.serve(pytorch(options))
    elif options.worker == "ours":
        settings: Dict[str, Any] = {
            "model": "densenet121",
            "num_classes": NUM_CLASSES,
            "image_size": options.image_size,
            "batch_size": options.batch_size,
            "momentum": MOMENTUM,
            "use_nesterov": True,
            "weight_decay": WEIGHT_DECAY,
            "intra_op_threads": options.threads,
        }
        with side_by_side.training(options.steps, **settings) as run_block:
            side_by_side.serve(run_block)
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    pythons = {"ours": sys.executable, "pytorch": options.pytorch}
    found = side_by_side.processes_in_turns(__file__, sys.argv[1:], pythons, options.blocks, pythons)
    what = f"training step, DenseNet-121, {options.image_size} px, batch {options.batch_size}"
    for of, how in (("cpu_seconds", ""), ("seconds", "wall-clock time")):
        ratios = side_by_side.ratios(found["ours"], found["pytorch"], of)
        side_by_side.row(what, "a plain PyTorch DenseNet-121", ratios, how)


def pytorch(options: argparse.Namespace) -> Callable[[], Any]:
    """A function that runs a block of steps."""
    import torch
    from torch import nn

    def normalised(convolution: nn.Module) -> nn.Sequential:
        return nn.Sequential(nn.BatchNorm2d(convolution.in_channels), nn.ReLU(inplace=True), convolution)

    class Layer(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            inner = BOTTLENECK * GROWTH_RATE
            self.grow = nn.Sequential(
                normalised(nn.Conv2d(channels, inner, 1, bias=False)),
                normalised(nn.Conv2d(inner, GROWTH_RATE, 3, padding=1, bias=False)),
            )

        def forward(self, features: Any) -> Any:
            return torch.cat([features, self.grow(features)], 1)

    parts = [nn.Conv2d(3, STEM, 7, 2, 3, bias=False), nn.BatchNorm2d(STEM), nn.ReLU(inplace=True)]
    parts.append(nn.MaxPool2d(3, 2, 1))
    channels = STEM
    for number, layers in enumerate(BLOCKS, start=1):
        for _ in range(layers):
            parts.append(Layer(channels))
            channels += GROWTH_RATE
        if number < len(BLOCKS):
            parts += [normalised(nn.Conv2d(channels, channels // 2, 1, bias=False)), nn.AvgPool2d(2)]
            channels //= 2
    parts += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*parts, nn.Linear(channels, NUM_CLASSES)).to(memory_format=torch.channels_last)

    torch.set_num_threads(options.threads)
    size = options.image_size
    images = torch.randn(options.batch_size, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(0, NUM_CLASSES, (options.batch_size,))
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.SGD(
        model.parameters(), side_by_side.LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )

    def run_block() -> None:
        for _ in range(options.steps):
            optimizer.zero_grad()
            loss(model(images), labels).backward()
            optimizer.step()

    return run_block


if __name__ == "__main__":
    main()
