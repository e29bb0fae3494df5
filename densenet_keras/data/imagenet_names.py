"""The 1,000 classes of ImageNet (ILSVRC 2012) by name, in the order of their labels. No TensorFlow."""

from __future__ import annotations

import collections
import os
from typing import Tuple

# A line "synset words" for each class, in the order of the synsets, which is that of the labels everywhere
# (TF-Slim, Torch, Keras, MindSpore). The words are those of WordNet 3.0, Princeton University.
_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "imagenet_classes.txt")
CLASSES = 1000
BACKGROUND = "background"  # what TensorFlow's 1,001 labels have in front


def class_names(num_classes: int) -> Tuple[str, ...]:
    """The first word of each class, all different; with the background in front for 1,001 classes.

    Raises:
        ValueError: ImageNet has another number of classes.
    """
    if num_classes not in (CLASSES, CLASSES + 1):
        raise ValueError(f"num_classes={num_classes}: ImageNet has {CLASSES}, or one more with background")
    with open(_FILE, encoding="utf-8") as file:
        lines = [line.rstrip("\n").partition(" ") for line in file]
    first = [words.partition(",")[0] for _, _, words in lines]
    counted = collections.Counter(first)
    names = [
        f"{name} ({synset})" if counted[name] > 1 else name for name, (synset, _, _) in zip(first, lines)
    ]
    return tuple([BACKGROUND] * (num_classes - CLASSES) + names)
