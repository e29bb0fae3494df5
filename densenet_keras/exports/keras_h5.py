"""A whole Keras model of Keras' own layers, under the layer names of Keras Applications."""

from __future__ import annotations

import os
from typing import Any, Dict

import numpy as np
import tensorflow as tf
from tensorflow.python.util import deprecation

from densenet_keras.backends import cpu
from densenet_keras.exports.base import Format, Pictures, Subject
from densenet_keras.exports.names import KERAS_EPSILON, keras_layer, with_epsilon
from densenet_keras.network.layers import NHWC, DenseBlock, TransitionLayer
from densenet_keras.network.variants import BN_SIZE, STANDARD, VARIANTS

FILE = "model.h5"
OF_KERAS = {"densenet121": "DenseNet121", "densenet169": "DenseNet169", "densenet201": "DenseNet201"}

_layers = tf.keras.layers


def is_of_keras(subject: Subject) -> bool:
    """Whether the network is one of Keras Applications, whatever its classes and picture size."""
    network = subject.network
    return (
        network.model in OF_KERAS
        and network.stem == STANDARD
        and network.growth_rate in (None, VARIANTS[network.model].growth_rate)
        and network.bn_size == BN_SIZE
    )


def write(folder: str, subject: Subject) -> None:
    """`FILE`, with configuration and weights."""
    weights = subject.model.get_weights()
    values = {v.op.name: value for v, value in zip(subject.model.weights, weights)}
    epsilon = KERAS_EPSILON if is_of_keras(subject) else subject.network.bn_epsilon
    # Keras saves layer by layer, each with a run of its own, and each would be optimised for half a second.
    plain = tf.compat.v1.ConfigProto()
    plain.graph_options.rewrite_options.disable_meta_optimizer = True
    session = tf.compat.v1.Session(graph=tf.Graph(), config=plain)
    with session.graph.as_default(), session.as_default(), deprecation.silence():
        tf.keras.backend.set_learning_phase(0)
        images = _layers.Input(subject.model.input_shape[1:], name="images")
        build = _Build(subject, values, epsilon)
        model = tf.keras.Model(images, build.network(images), name=subject.model.name)
        # All at once: each assignment on its own would extend the graph and start a run.
        model.set_weights([value for layer in model.layers for value in build.values_of.get(layer.name, [])])
        model.save(os.path.join(folder, FILE))


class _Build:
    """The network again, of stock layers.

    Attributes:
        values_of: by name of each stock layer, its weights in Keras' order.
    """

    def __init__(self, subject: Subject, values: Dict[str, np.ndarray], epsilon: float) -> None:
        self._model, self._values, self._epsilon = subject.model, values, epsilon
        self._ours = subject.network.bn_epsilon
        self._momentum = subject.network.bn_momentum
        self.values_of: Dict[str, Any] = {}

    def network(self, x: tf.Tensor) -> tf.Tensor:
        """From images to probabilities."""
        for number, layer in enumerate(self._model.layers[1:]):
            x = self._stage(layer, x, number)
        return x

    def _stage(self, layer: Any, x: tf.Tensor, number: int) -> tf.Tensor:
        if isinstance(layer, DenseBlock):
            for dense_layer in layer.dense_layers:
                x = self._dense_layer(f"{layer.name}/{dense_layer.name}", dense_layer, x)
            return x
        if isinstance(layer, TransitionLayer):
            x = self._relu(f"{layer.name}/bn", self._norm(f"{layer.name}/bn", x))
            x = self._conv(f"{layer.name}/conv", layer.reduction, x)
            name = keras_layer(f"{layer.name}/conv").replace("_conv", "_pool")
            return _layers.AveragePooling2D(2, strides=2, data_format=NHWC, name=name)(x)
        if isinstance(layer, _layers.Conv2D):
            return self._conv(layer.name, layer, x)
        if isinstance(layer, _layers.BatchNormalization):
            return self._norm(layer.name, x)
        if isinstance(layer, _layers.Dense):
            name = keras_layer(layer.name)
            self.values_of[name] = [self._values[f"{layer.name}/{part}"] for part in ("kernel", "bias")]
            return _layers.Dense(layer.units, activation="softmax", name=name)(x)
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})(x)

    def _dense_layer(self, ours: str, layer: Any, x: tf.Tensor) -> tf.Tensor:
        new = self._relu(f"{ours}/bn1", self._norm(f"{ours}/bn1", x))
        new = self._conv(f"{ours}/conv1", layer.conv1, new)
        new = self._relu(f"{ours}/bn2", self._norm(f"{ours}/bn2", new))
        new = self._conv(f"{ours}/conv2", layer.conv2, new)
        name = keras_layer(f"{ours}/conv1").replace("_1_conv", "_concat")
        return _layers.Concatenate(axis=-1, name=name)([x, new])

    def _norm(self, ours: str, x: tf.Tensor) -> tf.Tensor:
        gamma, beta, mean, variance = (
            self._values[f"{ours}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        if self._epsilon != self._ours:
            gamma = with_epsilon(gamma, variance, self._ours, self._epsilon)
        name = keras_layer(ours)
        self.values_of[name] = [gamma, beta, mean, variance]
        return _layers.BatchNormalization(axis=-1, momentum=self._momentum, epsilon=self._epsilon, name=name)(
            x
        )

    def _relu(self, norm: str, x: tf.Tensor) -> tf.Tensor:
        return _layers.Activation("relu", name=keras_layer(norm).replace("_bn", "_relu"))(x)

    def _conv(self, ours: str, layer: Any, x: tf.Tensor) -> tf.Tensor:
        name = keras_layer(ours)
        self.values_of[name] = [self._values[f"{ours}/kernel"]]
        return _layers.Conv2D(
            layer.filters,
            layer.kernel_size,
            strides=layer.strides,
            padding=layer.padding,
            use_bias=False,
            data_format=NHWC,
            name=name,
        )(x)


def read(folder: str, pictures: Pictures) -> Dict[str, np.ndarray]:
    """Logits of the model as Keras loads it: what its softmax is given."""
    with tf.Graph().as_default() as graph, cpu.session(graph) as session:
        tf.keras.backend.set_learning_phase(0)
        with deprecation.silence():
            model = tf.keras.models.load_model(os.path.join(folder, FILE))
        softmax = model.output.op
        if softmax.type != "Softmax":
            raise ValueError(f"the model ends in {softmax.type}, not in Softmax")
        return {"Keras": session.run(softmax.inputs[0], {model.input: pictures.normalised})}


def usage(subject: Subject) -> str:
    """How to load it."""
    text = f"""`{FILE}` is a whole Keras model of Keras' own layers: normalised pictures to probabilities.

```python
import tensorflow as tf

model = tf.keras.models.load_model("{FILE}")
probabilities = model.predict(pictures)
```
"""
    if not is_of_keras(subject):
        return text
    network, classes = OF_KERAS[subject.network.model], subject.model.output_shape[1]
    return f"""{text}
Layers and weights have the names of Keras Applications, and its epsilon ({KERAS_EPSILON}) with gammas that
make up for it, so that this gives the same model:

```python
model = tf.keras.applications.{network}(weights="{FILE}", classes={classes})
```
"""


FORMAT = Format(write, read, usage)
