"""What a network is fed with, and what a step computes."""

import contextlib
import functools

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from densenet_keras.backends.tensorflow.backend import TensorFlowBackend
from densenet_keras.network.densenet import build_densenet
from densenet_keras.settings.config import Config, ModelConfig
from densenet_keras.topology import Topology
from densenet_keras.training import steps
from tests.support.networks import assign_arbitrary, pictures


def fed(**settings):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        images = tf.constant([[[[0, 128, 255]]]], tf.uint8)
        return session.run(steps.network_input(images, ModelConfig(**settings)))[0, 0, 0]


@pytest.mark.parametrize(
    ("preprocessing", "first"), [("torch", -0.485 / 0.229), ("tf", -1), ("caffe", 255 - 103.939)]
)
def test_pictures_are_scaled_as_the_model_s_settings_say(preprocessing, first):
    np.testing.assert_allclose(fed(preprocessing=preprocessing)[0], first, rtol=1e-5)


def test_half_precision_rounds_what_is_fed():
    full, half = fed(), fed(dtype="tf.float16")
    np.testing.assert_array_equal(half, full.astype(np.float16).astype(np.float32))
    assert (half != full).any()


def test_logits_in_inference_are_the_same_in_every_form():
    found = {}
    for fast in (False, True):
        backend = TensorFlowBackend(Config().replace(fast_cpu=fast), Topology())
        with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
            tf.keras.backend.set_learning_phase(0)
            images = tf.constant(pictures())
            model = build_densenet(ModelConfig(model="densenet_tiny"), images)
            own = steps.inference_logits(model, images, backend)
            others = steps.inference_logits(model, tf.identity(images), backend)
            assign_arbitrary(session, model)
            found[fast] = session.run([own, others])
            if not fast:
                assert own is model.outputs[0]
            plain = [each.name for each in graph.get_operations() if each.name.startswith("folded")]
            assert bool(plain) == fast
    np.testing.assert_allclose(found[True], found[False], rtol=0, atol=1e-5 * np.abs(found[False]).max())
    np.testing.assert_array_equal(found[True][0], found[True][1])


def operations_of_a_step(**settings):
    """The operations that one training step runs."""
    with tf.Graph().as_default():
        tf.keras.backend.set_learning_phase(1)
        backend = TensorFlowBackend(Config().replace(model="densenet_tiny", **settings), Topology())
        labels = tf.zeros([2], tf.int32)
        _, step = steps.build_train_step(
            functools.partial(build_densenet, backend.config.model, rearranged=backend.rearranges),
            (tf.zeros([2, 32, 32, 3], tf.uint8), labels),
            backend.config,
            lambda step: tf.constant(0.1),
            backend,
        )
        found, left = set(), [step.train_op]
        while left:
            operation = left.pop()
            if operation not in found:
                found.add(operation)
                left += [*(each.op for each in operation.inputs), *operation.control_inputs]
        return found


@pytest.mark.parametrize(("fast", "expected"), [(True, 0), (False, 1)])
def test_the_fast_step_computes_no_gradient_of_the_pictures(fast, expected):
    """TensorFlow's own would wait for it before it uses that of the kernel."""
    of_pictures = [
        operation
        for operation in operations_of_a_step(fast_cpu=fast)
        if operation.type == "Conv2DBackpropInput" and operation.outputs[0].shape[-1] == 3
    ]
    assert len(of_pictures) == expected


def test_sums_of_squares_stay_in_float32_under_mixed_precision(monkeypatch):
    """In float16 the length of a gradient saturates or vanishes, and its overflow would skip the step."""

    @contextlib.contextmanager
    def marked(self):
        with tf.compat.v1.get_default_graph()._attr_scope({"_kept": attr_value_pb2.AttrValue(b=True)}):
            yield

    monkeypatch.setattr(TensorFlowBackend, "full_precision", marked)
    squares = [op for op in operations_of_a_step(gradient_norm_limit=1.0) if op.type == "L2Loss"]
    norms = [op for op in squares if op.inputs[0].op.type != "ReadVariableOp"]
    assert norms
    for operation in squares:
        assert operation.get_attr("_kept")
