"""Names of other programs, as pure text: which variables they are here, and which axes are turned."""

import pytest

from densenet_keras.network.weights import names
from densenet_keras.network.weights.names import CONVOLUTION, DENSE, Place

CASES = [
    (names.TORCH_LAYOUT, "features.conv0.weight", Place("stem_conv/kernel", CONVOLUTION)),
    (names.TORCH_LAYOUT, "features.norm0.running_var", Place("stem_bn/moving_variance")),
    (names.TORCH_LAYOUT, "features.denseblock3.denselayer12.norm2.weight", Place("block3/layer12/bn2/gamma")),
    (names.TORCH_LAYOUT, "features.denseblock3.denselayer12.norm.2.bias", Place("block3/layer12/bn2/beta")),
    (
        names.TORCH_LAYOUT, "module.features.denseblock1.denselayer1.conv1.weight",
        Place("block1/layer1/conv1/kernel", CONVOLUTION),
    ),
    (names.TORCH_LAYOUT, "features.transition2.norm.running_mean", Place("transition2/bn/moving_mean")),
    (names.TORCH_LAYOUT, "classifier.weight", Place("linear/kernel", DENSE)),
    (names.TORCH_LAYOUT, "features.norm5.num_batches_tracked", None),
    (
        names.MINDSPORE_LAYOUT, "features.denseblock1.cell_list.0.conv2.weight",
        Place("block1/layer1/conv2/kernel", CONVOLUTION),
    ),
    (names.MINDSPORE_LAYOUT, "features.transition1.features.norm.gamma", Place("transition1/bn/gamma")),
    (names.MINDSPORE_LAYOUT, "moments.features.conv0.weight", None),
    (names.MINDSPORE_LAYOUT, "classifier.bias", Place("linear/bias")),
    (names.KERAS_LAYOUT, "conv1/conv/kernel", Place("stem_conv/kernel")),
    (names.KERAS_LAYOUT, "conv1_bn/gamma", Place("stem_bn/gamma")),
    (names.KERAS_LAYOUT, "bn/beta", Place("final_bn/beta")),
    (names.KERAS_LAYOUT, "pool2_conv/kernel", Place("transition1/conv/kernel")),
    (names.KERAS_LAYOUT, "backbone/conv5_block16_1_bn/moving_mean", Place("block4/layer16/bn2/moving_mean")),
    (names.KERAS_LAYOUT, "predictions/kernel", Place("linear/kernel")),
    (names.KERAS_LAYOUT, "fc1000/kernel", Place("linear/kernel")),
    (names.OWN_LAYOUT, "block1/layer1/conv1/kernel", Place("block1/layer1/conv1/kernel")),
    (names.OWN_LAYOUT, "block1/layer1/conv1/kernel/Momentum", None),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "name", "place"), CASES, ids=[case[1] for case in CASES])
def test_a_name_has_its_place(layout, name, place):
    assert layout.translate([name]).get(name) == place


def test_two_dense_layers_of_a_user_are_not_guessed_at():
    found = names.KERAS_LAYOUT.translate(["bn/gamma", "dense/kernel", "dense_1/kernel"])
    assert set(found) == {"bn/gamma"}


@pytest.mark.parametrize(
    ("listed", "layout"),
    [
        (["features.norm0.weight", "classifier.weight"], names.TORCH_LAYOUT),
        (["features.norm0.gamma", "features.conv0.weight", "classifier.weight"], names.MINDSPORE_LAYOUT),
        (["conv1/conv/kernel", "bn/gamma"], names.KERAS_LAYOUT),
        (["dense_0_bottleN_0_batch1/gamma", "conv2d/kernel", "linear/kernel"], names.ORIGINAL_LAYOUT),
        (["stem_conv/kernel", "linear/kernel", "global_step"], names.OWN_LAYOUT),
        (["layer1.0.conv1.weight", "fc.weight"], None),
    ],
)
def test_a_file_is_of_the_layout_that_knows_most_of_its_names(listed, layout):
    assert names.layout_of(listed) is layout


def test_the_original_counts_its_convolutions_over_scopes():
    listed = [f"dense_{b}_bottleN_{n}_batch1/gamma" for b in ("0", "1", "final") for n in range(2)]
    listed += ["conv2d/kernel", *(f"conv2d_{n}/kernel" for n in range(1, 15))]
    found = names.ORIGINAL_LAYOUT.translate(listed)
    order = [found[name].variable for name in listed[6:]]
    assert order[:6] == [
        "stem_conv/kernel", "block1/layer1/conv1/kernel", "block1/layer1/conv2/kernel",
        "block1/layer2/conv1/kernel", "block1/layer2/conv2/kernel", "transition1/conv/kernel",
    ]  # fmt: skip
    assert order[-1] == "block3/layer2/conv2/kernel"
