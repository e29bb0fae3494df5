"""The same logits as tf.keras.applications with the same weights, at 224 pixels."""

import re

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.network import applications
from tests.support.networks import arbitrary, assign

KERAS_EPSILON = 1.001e-5


def name_here(keras_name):
    """Our variable for a layer of keras.applications, without the variable's own name."""
    fixed = {
        "conv1/conv": "stem_conv",
        "conv1/bn": "stem_bn",
        "bn": "final_bn",
        "fc1000": "linear",
    }
    if keras_name in fixed:
        return fixed[keras_name]
    transition = re.match(r"pool(\d)_(bn|conv)$", keras_name)
    if transition:
        return f"transition{int(transition.group(1)) - 1}/{transition.group(2)}"
    dense = re.match(r"conv(\d)_block(\d+)_(0_bn|1_bn|1_conv|2_conv)$", keras_name)
    part = {"0_bn": "bn1", "1_conv": "conv1", "1_bn": "bn2", "2_conv": "conv2"}[dense.group(3)]
    return f"block{int(dense.group(1)) - 1}/layer{dense.group(2)}/{part}"


def keras_logits(network, inputs):
    """Logits of keras.applications on arbitrary weights, and those weights under our names."""
    random = np.random.RandomState(1)
    with tf.Graph().as_default(), tf.compat.v1.Session().as_default() as session:
        tf.keras.backend.set_learning_phase(0)
        x = tf.constant(inputs)
        model = getattr(tf.keras.applications, network)(weights=None, input_tensor=x)
        values, named = {}, {}
        for layer in model.layers:
            for variable in layer.weights:
                kind = variable.op.name.rsplit("/", 1)[1]
                value = arbitrary(kind, variable.shape.as_list(), random).astype(np.float32)
                values[variable] = named[f"{name_here(layer.name)}/{kind}"] = value
        assign(session, values)
        softmax = model.output.op
        assert softmax.type == "Softmax"
        return session.run(softmax.inputs[0]), named


def our_logits(network, inputs, values):
    with tf.Graph().as_default(), tf.compat.v1.Session().as_default() as session:
        tf.keras.backend.set_learning_phase(0)
        x = tf.constant(inputs)
        model = getattr(applications, network)(inputs=x, bn_epsilon=KERAS_EPSILON)
        assert {variable.op.name for variable in model.weights} == set(values)
        assign(session, {variable: values[variable.op.name] for variable in model.weights})
        return session.run(model.output)


@pytest.mark.parametrize("network", ["DenseNet121", "DenseNet169", "DenseNet201"])
def test_same_weights_give_the_same_logits(network):
    inputs = np.random.RandomState(0).normal(size=(2, 224, 224, 3)).astype(np.float32)
    expected, values = keras_logits(network, inputs)
    assert np.abs(expected).max() > 0.5
    assert np.abs(expected[0] - expected[1]).max() > 0.05
    np.testing.assert_allclose(our_logits(network, inputs, values), expected, rtol=0, atol=1e-5)
