"""The README of an output folder: how it was made, what goes in, how to load it."""

from __future__ import annotations

import os

import densenet_keras
from densenet_keras.data.images import EVAL_CROP, EVAL_RESIZE
from densenet_keras.exports.base import CLASSES_FILE, Subject
from densenet_keras.exports.formats import FORMATS, OF_PIXELS, find
from densenet_keras.network.preprocessing import PREPROCESSINGS

FILE = "README.md"


def text(folder: str, name: str, subject: Subject, command: str, compared: str) -> str:
    """Markdown.

    Args:
        folder: with the export in it.
        name: of its format.
        command: that made it.
        compared: what its comparison with the checkpoint gave.
    """
    classes = f"{subject.model.output_shape[1]} classes"
    if subject.class_names is not None:
        inside = os.path.join("assets", CLASSES_FILE)
        place = inside if os.path.exists(os.path.join(folder, inside)) else CLASSES_FILE
        classes += f", whose names are in `{place}`, a line each, in the order of the logits"
    return "\n".join([
        f"# {subject.network.model}",
        "",
        f"Step {subject.model.step} of `{subject.model.checkpoint}`, with {classes}; made by densenet_keras "
        f"{densenet_keras.__version__} with",
        "",
        f"```bash\n{command}\n```",
        "",
        f"Read back and compared with the checkpoint: {compared}.",
        "",
        "## What goes in",
        "",
        _pictures(name, subject),
        "",
        "## How to load it",
        "",
        find(name).usage(subject),
    ])  # fmt: skip


def _pictures(name: str, subject: Subject) -> str:
    size = subject.image_size
    short_side = round(size * EVAL_RESIZE / EVAL_CROP)
    cut = (
        f"Pictures of {size}x{size} pixels: evaluation resizes the short side to {short_side} (bilinear) and "
        "cuts out the centre. "
    )
    if FORMATS[name].graph == OF_PIXELS:
        return cut + "Pixels are RGB from 0 to 255, as float32; the network normalises them itself."
    wanted = PREPROCESSINGS[subject.network.preprocessing]
    mean, deviation = (", ".join(f"{v:.6g}" for v in each) for each in (wanted.mean, wanted.deviation))
    return (
        f"{cut}The network itself takes them normalised: {wanted.channels}, each channel from 0 to 255 less "
        f"({mean}), divided by ({deviation}), as float32."
    )
