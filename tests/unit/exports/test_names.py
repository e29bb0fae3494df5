"""Our variables under other programs' names."""

import numpy as np
import pytest

from densenet_keras.exports.names import keras_layer, torch_state, with_epsilon


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("stem_conv", "conv1/conv"),
        ("stem_bn", "conv1/bn"),
        ("block1/layer2/bn1", "conv2_block2_0_bn"),
        ("block4/layer16/conv1", "conv5_block16_1_conv"),
        ("block4/layer16/bn2", "conv5_block16_1_bn"),
        ("block2/layer1/conv2", "conv3_block1_2_conv"),
        ("transition1/bn", "pool2_bn"),
        ("transition3/conv", "pool4_conv"),
        ("final_bn", "bn"),
        ("linear", "fc1000"),
    ],
)
def test_names_of_keras_applications(ours, theirs):
    assert keras_layer(ours) == theirs


def test_a_torch_state_has_torchs_names_axes_and_epsilon():
    random = np.random.RandomState(0)
    kernel, dense = random.normal(size=(3, 3, 4, 5)), random.normal(size=(6, 2))
    values = {
        "block1/layer2/conv2/kernel": kernel,
        "linear/kernel": dense,
        "linear/bias": np.arange(2.0),
        "transition1/bn/gamma": np.ones(3),
        "transition1/bn/beta": np.zeros(3),
        "transition1/bn/moving_mean": np.full(3, 2.0),
        "transition1/bn/moving_variance": np.full(3, 0.5),
    }
    state = torch_state(values, bn_epsilon=1e-3)
    assert set(state) == {
        "features.denseblock1.denselayer2.conv2.weight", "classifier.weight", "classifier.bias",
        "features.transition1.norm.weight", "features.transition1.norm.bias",
        "features.transition1.norm.running_mean", "features.transition1.norm.running_var",
    }  # fmt: skip
    assert {value.dtype for value in state.values()} == {np.dtype(np.float32)}
    conv = state["features.denseblock1.denselayer2.conv2.weight"]
    assert conv[4, 3, 1, 2] == np.float32(kernel[1, 2, 3, 4])
    assert state["classifier.weight"][1, 5] == np.float32(dense[5, 1])
    gamma = state["features.transition1.norm.weight"]
    np.testing.assert_allclose(gamma / np.sqrt(0.5 + 1e-5), 1 / np.sqrt(0.5 + 1e-3), rtol=1e-6)


def test_a_variance_of_zero_stays_finite():
    gamma = with_epsilon(np.ones(1), np.zeros(1), ours=1e-3, theirs=1e-5)
    np.testing.assert_allclose(gamma, np.sqrt(1e-5 / 1e-3), rtol=1e-6)


def test_a_name_that_is_no_layer_is_refused():
    with pytest.raises(ValueError, match="dense_0 is not a layer"):
        keras_layer("dense_0")
