"""An ONNX file, by tf2onnx."""

from __future__ import annotations

import os
from typing import Dict

import numpy as np

from densenet_keras.errors import RunError
from densenet_keras.exports import inference
from densenet_keras.exports.base import Format, Pictures, Subject

FILE = "model.onnx"


def write(folder: str, subject: Subject) -> None:
    """`FILE`, its first axis free.

    Raises:
        RunError: the converter fails.
    """
    from tf2onnx import convert

    outputs = [f"{name}:0" for name in inference.OUTPUTS]
    names = (inference.PIXELS, *inference.OUTPUTS)
    try:
        model, _ = convert.from_graph_def(
            subject.graph_def,
            name=subject.model.name,
            input_names=[f"{inference.PIXELS}:0"],
            output_names=outputs,
            opset=subject.options.opset,
            tensors_to_rename={f"{name}:0": name for name in names},
        )
    except Exception as error:  # it raises whatever comes up
        raise RunError(f"tf2onnx failed: {type(error).__name__}: {error}") from error
    with open(os.path.join(folder, FILE), "wb") as file:
        file.write(model.SerializeToString())


def read(folder: str, pictures: Pictures) -> Dict[str, np.ndarray]:
    """Logits by onnxruntime, of all pictures and one by one."""
    import onnxruntime

    session = onnxruntime.InferenceSession(os.path.join(folder, FILE), providers=["CPUExecutionProvider"])

    def logits(pixels: np.ndarray) -> np.ndarray:
        found: np.ndarray = session.run([inference.LOGITS], {inference.PIXELS: pixels.astype(np.float32)})[0]
        return found

    alone = [logits(pixels[np.newaxis]) for pixels in pictures.pixels]
    return {"all": logits(pictures.pixels), "one by one": np.concatenate(alone)}


def usage(subject: Subject) -> str:
    """How to load it."""
    size = subject.image_size
    return f"""`{FILE}` is an ONNX model of opset {subject.options.opset}.

- Input: `{inference.PIXELS}` [any number, {size}, {size}, 3] float32, channels last.
- Outputs: `{inference.LOGITS}` and `{inference.PROBABILITIES}`.

```python
import onnxruntime

session = onnxruntime.InferenceSession("{FILE}", providers=["CPUExecutionProvider"])
logits, probabilities = session.run(None, {{"{inference.PIXELS}": pixels}})
```
"""


FORMAT = Format(write, read, usage)
