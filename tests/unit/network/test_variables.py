"""Names and shapes known beforehand are those of the network that is built."""

import pytest
import tensorflow as tf

from densenet_keras.network.densenet import densenet
from densenet_keras.network.variables import variables
from densenet_keras.network.variants import VARIANTS


@pytest.mark.parametrize(
    ("model", "stem", "options"),
    [
        ("densenet_tiny", "standard", {}),
        ("densenet_tiny", "original", {"bn_size": 3}),
        ("densenet_cifar", "standard", {}),
    ],
)
def test_variables_are_those_of_the_built_network_in_its_order(model, stem, options):
    variant = VARIANTS[model].with_stem(stem)
    with tf.Graph().as_default():
        built = densenet(variant, classes=7, **options)
        found = {v.op.name: tuple(v.shape.as_list()) for v in built.weights}
    assert found == variables(variant, 7, **options)


def test_another_growth_rate_makes_other_shapes():
    wider = variables(VARIANTS["densenet_tiny"].with_growth_rate(12), 7)
    assert wider["stem_conv/kernel"] == (7, 7, 3, 24)
    assert wider["block1/layer1/conv2/kernel"] == (3, 3, 48, 12)
