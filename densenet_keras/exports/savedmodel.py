"""A TensorFlow SavedModel with two signatures: pixels, and JPEG files with the evaluation's preprocessing."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import Dict, Iterator, List, Optional, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.python.util import deprecation

from densenet_keras.backends import cpu
from densenet_keras.data.images import decode_eval
from densenet_keras.exports import inference
from densenet_keras.exports.base import CLASSES_FILE, Format, Pictures, Subject, write_class_names

_saved_model = tf.compat.v1.saved_model
FLOATS = _saved_model.signature_constants.DEFAULT_SERVING_SIGNATURE_DEF_KEY
JPEG = "jpeg"


def write(folder: str, subject: Subject) -> None:
    """saved_model.pb, its constants inside, and the class names as an asset."""
    with tf.Graph().as_default() as graph, cpu.session(graph) as session:
        encoded = tf.compat.v1.placeholder(tf.string, [None], name=JPEG)
        decoded = tf.map_fn(
            lambda one: decode_eval(one, subject.image_size), encoded, dtype=tf.uint8, back_prop=False
        )
        # A caller that feeds pixels needs no JPEG: both signatures share the network behind.
        shape = [None, *decoded.shape[1:]]
        pixels = tf.compat.v1.placeholder_with_default(
            tf.cast(decoded, tf.float32), shape, name=f"{inference.PIXELS}_or_{JPEG}"
        )
        logits, probabilities = tf.import_graph_def(
            subject.graph_def,
            input_map={f"{inference.PIXELS}:0": pixels},
            return_elements=[f"{name}:0" for name in inference.OUTPUTS],
            name="",
        )
        outputs = dict(zip(inference.OUTPUTS, (logits, probabilities)))
        with deprecation.silence():
            signatures = {
                FLOATS: _saved_model.predict_signature_def({inference.PIXELS: pixels}, outputs),
                JPEG: _saved_model.predict_signature_def({JPEG: encoded}, outputs),
            }
            builder = _saved_model.Builder(folder)
            with _assets(subject.class_names) as assets:
                builder.add_meta_graph_and_variables(
                    session,
                    [_saved_model.tag_constants.SERVING],
                    signatures,
                    assets_collection=assets,
                    strip_default_attrs=True,
                )
            builder.save()


@contextlib.contextmanager
def _assets(class_names: Optional[Sequence[str]]) -> Iterator[Optional[List[tf.Tensor]]]:
    """The nodes of the files that belong to the model, as the builder wants them; it copies the files."""
    if class_names is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, CLASSES_FILE)
        write_class_names(path, class_names)
        asset = tf.constant(path, name="classes_file")
        tf.compat.v1.add_to_collection(tf.compat.v1.GraphKeys.ASSET_FILEPATHS, asset)
        yield [asset]


def read(folder: str, pictures: Pictures) -> Dict[str, np.ndarray]:
    """Logits by both signatures; by each of them also one picture alone."""
    inputs = {
        FLOATS: (inference.PIXELS, pictures.pixels.astype(np.float32)),
        JPEG: (JPEG, np.array(pictures.encoded, dtype=object)),
    }
    found = {}
    with tf.Graph().as_default() as graph, cpu.session(graph) as session:
        with deprecation.silence():
            loaded = _saved_model.load(session, [_saved_model.tag_constants.SERVING], folder)
        for key, (name, values) in inputs.items():
            signature = loaded.signature_def[key]
            fed = graph.get_tensor_by_name(signature.inputs[name].name)
            logits = graph.get_tensor_by_name(signature.outputs[inference.LOGITS].name)
            alone = [session.run(logits, {fed: values[number : number + 1]}) for number in range(len(values))]
            found[key] = session.run(logits, {fed: values})
            found[f"{key}, one by one"] = np.concatenate(alone)
    return found


def usage(subject: Subject) -> str:
    """How to load it."""
    size, probabilities = subject.image_size, inference.PROBABILITIES
    return f"""A TensorFlow SavedModel (tag `serve`) with two signatures for any number of pictures. Both have
the outputs `{inference.LOGITS}` and `{probabilities}`.

- `{FLOATS}`: `{inference.PIXELS}` [any number, {size}, {size}, 3] float32, RGB from 0 to 255.
- `{JPEG}`: `{JPEG}` [any number] of encoded JPEG or PNG files of any size; it resizes and cuts out as
  evaluation does.

```bash
saved_model_cli show --dir . --all
```

```python
import tensorflow as tf

with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    loaded = tf.compat.v1.saved_model.load(session, ["serve"], ".")
    signature = loaded.signature_def["{JPEG}"]
    feed = {{signature.inputs["{JPEG}"].name: [open("picture.jpg", "rb").read()]}}
    print(session.run(signature.outputs["{probabilities}"].name, feed))
```
"""


FORMAT = Format(write, read, usage)
