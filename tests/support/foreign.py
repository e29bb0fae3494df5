"""Files of weights as other programs write them, and what networks make of them here."""

import json
import os
import struct
import zlib

import numpy as np
import tensorflow as tf

from densenet_keras.backends import cpu
from densenet_keras.network.densenet import build_densenet
from densenet_keras.network.variables import variables
from densenet_keras.network.variants import VARIANTS
from densenet_keras.network.weights import source as weights
from densenet_keras.settings.config import ModelConfig
from tests.parity.fixtures import recipe
from tests.support import networks
from tests.support.paths import ROOT

FIXTURES = os.path.join(ROOT, "tests", "parity", "fixtures")
TINY = {"model": "densenet_tiny", "num_classes": 10}


class Fixture:
    """A network of a fixture: what its program calls its arrays, and the logits that it computed."""

    def __init__(self, file, network):
        with np.load(os.path.join(FIXTURES, file)) as stored:
            self.names = [str(name) for name in stored[f"{network}/names"]]
            shapes = [tuple(map(int, str(text).split())) for text in stored[f"{network}/shapes"]]
            self.shapes = dict(zip(self.names, shapes))
            self.logits = stored[f"{network}/logits"]
            self.versions = [str(version) for version in stored["versions"]]

    def weights(self):
        """Name to array, in the order of the program."""
        return {
            name: np.zeros(shape, np.int64) if name.endswith("num_batches_tracked")
            else recipe.torch_weight(name, shape)
            for name, shape in self.shapes.items()
        }  # fmt: skip


def pictures(size=64):
    return recipe.pictures(2, size)


def write_safetensors(path, arrays, metadata=None, dtype=None):
    """As the package of that name does, whose files begin with an aligned header."""
    kinds = {"float32": "F32", "float64": "F64", "float16": "F16", "int64": "I64", "uint16": "BF16"}
    header = {"__metadata__": metadata} if metadata else {}
    blobs, place = [], 0
    for name, array in arrays.items():
        blob = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": kinds[array.dtype.name], "shape": list(array.shape),
            "data_offsets": [place, place + len(blob)],
        }  # fmt: skip
        blobs.append(blob)
        place += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(str(path), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    return str(path)


def _varint(number):
    out = bytearray()
    while True:
        out.append(number & 0x7F | (0x80 if number > 0x7F else 0))
        number >>= 7
        if not number:
            return bytes(out)


def _field(number, content):
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def mindspore_value(name, array, content=None):
    """One value of a MindSpore checkpoint."""
    kinds = {"float32": "Float32", "float16": "Float16", "int32": "Int32"}
    dims = b"".join(b"\x08" + _varint(side) for side in array.shape)
    kind = _field(2, kinds[array.dtype.name].encode())
    tensor = dims + kind + _field(3, content or array.tobytes())
    return _field(1, _field(1, name.encode()) + _field(2, tensor))


def write_mindspore(path, arrays, crc=False):
    content = b"".join(mindspore_value(name, array) for name, array in arrays.items())
    if crc:
        content += b"crc_num" + zlib.crc32(content).to_bytes(10, "big")
    with open(str(path), "wb") as file:
        file.write(content)
    return str(path)


def whole(source):
    """Settings and values of a file that fills its network, and has nothing else but counters."""
    settings = weights.network_settings(source)
    variant = VARIANTS[settings["model"]].with_stem(settings["stem"])
    found = weights.match(source, variables(variant, settings["num_classes"], settings["bn_size"]))
    assert not found.missing
    assert set(found.left_out.values()) <= {"optimizer state or a counter"}
    return settings, weights.values(source, found)


def logits(settings, values, inputs):
    """Of our network with these settings and values ({variable: array}), in inference form."""
    config = ModelConfig(**{"image_size": inputs.shape[1], **settings})
    graph = tf.Graph()
    with graph.as_default():
        tf.keras.backend.set_learning_phase(0)
        images = tf.constant(inputs)
        model = build_densenet(config, images)
        assert {variable.op.name for variable in model.weights} == set(values)
        with cpu.session(graph) as session:
            networks.assign(session, {variable: values[variable.op.name] for variable in model.weights})
            return session.run(model.output)


def assert_same_logits(ours, theirs, tolerance=1e-4):
    """Largest difference against the largest logit; the same five classes in front, in the same order."""
    assert np.abs(theirs[0] - theirs[1]).max() > 0.1 * np.abs(theirs).max(), "the pictures make no difference"
    difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert difference < tolerance, f"differs by {difference:.1e}"
    np.testing.assert_array_equal(np.argsort(-ours)[:, :5], np.argsort(-theirs)[:, :5])
    return difference
