"""A frozen TensorFlow graph."""

from __future__ import annotations

import os
from typing import Dict

import numpy as np
import tensorflow as tf

from densenet_keras.exports import inference
from densenet_keras.exports.base import Format, Pictures, Subject

FILE = "model.pb"


def write(folder: str, subject: Subject) -> None:
    """`FILE`, a binary GraphDef."""
    with open(os.path.join(folder, FILE), "wb") as file:
        file.write(subject.graph_def.SerializeToString())


def load(folder: str) -> tf.compat.v1.GraphDef:
    """The graph in `folder`."""
    with open(os.path.join(folder, FILE), "rb") as file:
        return tf.compat.v1.GraphDef.FromString(file.read())


def read(folder: str, pictures: Pictures) -> Dict[str, np.ndarray]:
    """Logits of the graph."""
    return {"the graph": inference.run(load(folder), pictures.pixels)}


def usage(subject: Subject) -> str:
    """How to load it."""
    size = subject.image_size
    return f"""`{FILE}` is a frozen TensorFlow graph (GraphDef), made of constants alone.

- Input: `{inference.PIXELS}:0` [any number, {size}, {size}, 3] float32.
- Outputs: `{inference.LOGITS}:0` and `{inference.PROBABILITIES}:0`.

```python
import tensorflow as tf

graph_def = tf.compat.v1.GraphDef.FromString(open("{FILE}", "rb").read())
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    tf.import_graph_def(graph_def, name="")
    probabilities = session.run("{inference.PROBABILITIES}:0", {{"{inference.PIXELS}:0": pixels}})
```
"""


FORMAT = Format(write, read, usage)
