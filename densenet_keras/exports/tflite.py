"""A TensorFlow Lite file, by the converter of TensorFlow 1.15, with weights in float32 or float16."""

from __future__ import annotations

import os
import sys
from typing import Dict

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import convert as toco

from densenet_keras.backends import cpu
from densenet_keras.errors import RunError
from densenet_keras.exports import inference
from densenet_keras.exports.base import Format, Pictures, Subject
from densenet_keras.exports.formats import FLOAT16

FILE = "model.tflite"


def write(folder: str, subject: Subject) -> None:
    """`FILE`, for one picture unless its user makes the input larger.

    Raises:
        RunError: the converter fails.
    """
    _find_converter()
    with tf.Graph().as_default() as graph, cpu.session(graph) as session:
        tf.import_graph_def(subject.graph_def, name="")
        pixels = graph.get_tensor_by_name(f"{inference.PIXELS}:0")
        outputs = [graph.get_tensor_by_name(f"{name}:0") for name in inference.OUTPUTS]
        converter = tf.compat.v1.lite.TFLiteConverter.from_session(session, [pixels], outputs)
        if subject.options.precision == FLOAT16:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        try:
            content = converter.convert()
        except (toco.ConverterError, ValueError) as error:
            raise RunError(f"TensorFlow's Lite converter failed: {error}") from error
    with open(os.path.join(folder, FILE), "wb") as file:
        file.write(content)


def _find_converter() -> None:
    """Lets TensorFlow find its converter, a program, where the environment's programs are not on PATH."""
    beside = os.path.join(os.path.dirname(sys.executable), "toco_from_protos")
    if toco._toco_from_proto_bin == os.path.basename(beside) and os.path.exists(beside):
        toco._toco_from_proto_bin = beside


def read(folder: str, pictures: Pictures) -> Dict[str, np.ndarray]:
    """Logits one by one, and of all pictures with the input made as large."""
    pixels = pictures.pixels
    return {"one by one": _run(folder, pixels, 1), "all": _run(folder, pixels, len(pixels))}


def _run(folder: str, pixels: np.ndarray, batch_size: int) -> np.ndarray:
    interpreter = tf.lite.Interpreter(os.path.join(folder, FILE))
    fed = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(fed, [batch_size, *pixels.shape[1:]])
    interpreter.allocate_tensors()
    logits = next(o for o in interpreter.get_output_details() if o["name"] == inference.LOGITS)["index"]
    found = []
    for start in range(0, len(pixels), batch_size):
        interpreter.set_tensor(fed, pixels[start : start + batch_size].astype(np.float32))
        interpreter.invoke()
        found.append(interpreter.get_tensor(logits))
    return np.concatenate(found)


def usage(subject: Subject) -> str:
    """How to load it."""
    size, precision = subject.image_size, subject.options.precision
    return f"""`{FILE}` is a TensorFlow Lite model with weights in {precision}.

- Input: `{inference.PIXELS}` [1, {size}, {size}, 3] float32; `resize_tensor_input` makes it longer.
- Outputs: `{inference.LOGITS}` and `{inference.PROBABILITIES}`.

```python
import tensorflow as tf

interpreter = tf.lite.Interpreter("{FILE}")
interpreter.allocate_tensors()
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
interpreter.invoke()
for output in interpreter.get_output_details():
    print(output["name"], interpreter.get_tensor(output["index"]))
```
"""


FORMAT = Format(write, read, usage)
