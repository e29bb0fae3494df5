"""What a network is fed with."""

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.settings.config import ModelConfig
from densenet_keras.training import steps


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
