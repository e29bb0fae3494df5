"""Weights of a Keras .h5 file: of `save_weights`, or a model saved whole (h5py comes with TensorFlow)."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, List

import numpy as np

from densenet_keras.errors import UsageError
from densenet_keras.network.weights.tensors import Tensors, reading

_MAGIC = b"\x89HDF\r\n\x1a\n"
_MODEL_WEIGHTS = "model_weights"  # the group of a model saved whole


def recognises(start: bytes) -> bool:
    """Whether a file that starts so is of this format."""
    return start.startswith(_MAGIC)


def read(path: str) -> Tensors:
    """The weights of all layers, those of models inside models too, by the names of their variables.

    Raises:
        UsageError: the file is damaged, or no Keras file of HDF5.
    """
    import h5py

    with reading(path), h5py.File(path, "r") as file:
        weights = file.get(_MODEL_WEIGHTS, file)
        layers = _names(weights, "layer_names")
        if not layers:
            raise UsageError(
                f"{path} is an HDF5 file, but none of Keras' with layer names; save it with "
                "model.save_weights('weights.h5') or model.save('model.h5')"
            )
        places = {
            weight: f"{weights[layer].name}/{stored}"
            for layer in layers
            for weight, stored in _weights_of(weights[layer])
        }
        shapes = {name: tuple(file[place].shape) for name, place in places.items()}
        facts = _facts(file.attrs.get("model_config"))

    def read_one(name: str) -> np.ndarray:
        with reading(path, name), h5py.File(path, "r") as file:
            array: np.ndarray = file[places[name]][()]
            return array

    return Tensors("Keras HDF5", shapes, read_one, facts)


def _weights_of(group: Any) -> Iterator[Any]:
    """(name of the variable without `:0`, name in the group) of each weight of a layer."""
    for stored in _names(group, "weight_names"):
        yield stored[:-2] if stored.endswith(":0") else stored, stored


def _names(group: Any, attribute: str) -> List[str]:
    """A list of names, which Keras cuts into attributes NAME0, NAME1 and so on where it is long."""
    found: List[Any] = []
    if attribute in group.attrs:
        found = list(group.attrs[attribute])
    else:
        part = 0
        while f"{attribute}{part}" in group.attrs:
            found += list(group.attrs[f"{attribute}{part}"])
            part += 1
    return [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in found]


def _facts(described: Any) -> Dict[str, float]:
    """Epsilon and momentum that all batch normalisations of a model's description share."""
    if described is None:
        return {}
    text = described.decode("utf-8") if isinstance(described, bytes) else described
    norms = [
        layer["config"]
        for layer in _layers(json.loads(text))
        if layer.get("class_name") in ("BatchNormalization", "BatchNormalizationV1", "BatchNormalizationV2")
    ]
    facts = {}
    for name, ours in (("epsilon", "bn_epsilon"), ("momentum", "bn_momentum")):
        values = {norm[name] for norm in norms if name in norm}
        if len(values) == 1:
            facts[ours] = float(values.pop())
    return facts


def _layers(described: Any) -> Iterator[Dict[str, Any]]:
    """Every layer of a model's description, those of models inside it too."""
    layers = described.get("config", {})
    if isinstance(layers, dict):
        layers = layers.get("layers", [])
    for layer in layers:
        if isinstance(layer, dict) and "config" in layer:
            yield layer
            if isinstance(layer["config"], (dict, list)):
                yield from _layers(layer)
