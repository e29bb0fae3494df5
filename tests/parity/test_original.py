"""The original implementation's graph, rebuilt from what is published of it, and its checkpoints imported.

DenseNet-BC as in the paper, but: the 7x7 convolution has "same" padding and neither batch norm nor ReLU
behind it, and no pool is padded. Batch norms are contrib's (decay 0.9, epsilon 1e-3, moving mean debiased),
made twice under tf.cond, in scopes dense_0_bottleN_0_batch1, trans_0_batch1, linear_batch; convolutions are
tf.layers' without a name, so they are counted: conv2d, conv2d_1 and so on.
"""

import os

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.backends import cpu
from densenet_keras.commands import main as cli
from densenet_keras.network.variables import NORM_PARTS, variables
from densenet_keras.network.variants import VARIANTS
from densenet_keras.network.weights import source as weights
from densenet_keras.network.weights.names import ORIGINAL_LAYOUT, layout_of
from densenet_keras.settings.config import FINETUNE
from tests.parity.fixtures import recipe
from tests.support import foreign


class OriginalGraph:
    def __init__(self, blocks, growth, classes):
        self.blocks, self.growth, self.classes = blocks, growth, classes
        self.training = tf.compat.v1.placeholder_with_default(False, [])

    def norm(self, x, scope):
        def form(is_training, reuse):
            return lambda: tf.contrib.layers.batch_norm(
                x, decay=0.9, center=True, scale=True, zero_debias_moving_mean=True, scope=scope,
                updates_collections=None, is_training=is_training, reuse=reuse,
            )  # fmt: skip

        return tf.nn.relu(tf.cond(self.training, form(True, None), form(False, True)))

    def conv(self, x, filters, side, stride=1):
        return tf.compat.v1.layers.conv2d(x, filters, side, stride, padding="same", use_bias=False)

    def block(self, x, layers, scope):
        for number in range(layers):
            new = self.norm(x, f"{scope}_bottleN_{number}_batch1")
            new = self.conv(new, 4 * self.growth, 1)
            new = self.norm(new, f"{scope}_bottleN_{number}_batch2")
            x = tf.concat([x, self.conv(new, self.growth, 3)], axis=3)
        return x

    def logits(self, images):
        x = self.conv(images, 2 * self.growth, 7, stride=2)
        x = tf.compat.v1.layers.max_pooling2d(x, 3, 2, padding="valid")
        for number, layers in enumerate(self.blocks[:-1]):
            x = self.block(x, layers, f"dense_{number}")
            x = self.norm(x, f"trans_{number}_batch1")
            x = self.conv(x, int(x.shape[-1]) // 2, 1)
            x = tf.compat.v1.layers.average_pooling2d(x, 2, 2, padding="valid")
        x = self.block(x, self.blocks[-1], "dense_final")
        x = tf.reduce_mean(self.norm(x, "linear_batch"), axis=[1, 2])
        return tf.compat.v1.layers.dense(x, self.classes, name="linear")


def checkpoint_and_logits(folder, blocks, growth, classes):
    """Prefix of a checkpoint that the original's Saver would write, optimizer included, and its logits."""
    graph = tf.Graph()
    with graph.as_default():
        images = tf.constant(foreign.pictures())
        logits = OriginalGraph(blocks, growth, classes).logits(images)
        step = tf.compat.v1.train.get_or_create_global_step()
        tf.compat.v1.train.MomentumOptimizer(0.1, 0.9).minimize(tf.reduce_sum(logits), step)
        saver = tf.compat.v1.train.Saver()
        parts = ("kernel", "bias", *NORM_PARTS)
        known = [v for v in tf.compat.v1.global_variables() if v.op.name.rpartition("/")[2] in parts]
        with cpu.session(graph) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            for variable in known:
                shape = variable.shape.as_list()
                variable.load(recipe.weight(variable.op.name, shape, range(len(shape) - 1)), session)
            prefix = saver.save(session, str(folder / "model.ckpt"), global_step=100)
            return prefix, session.run(logits)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return checkpoint_and_logits(tmp_path_factory.mktemp("original"), (2, 2, 2), 8, 10)


def test_a_checkpoint_of_the_original_gives_its_logits(small):
    prefix, expected = small
    source = weights.open_source(prefix)
    assert source.layout is ORIGINAL_LAYOUT
    settings, values = foreign.whole(source)
    assert settings["model"] == "densenet_tiny"
    assert settings["stem"] == "original"
    assert settings["bn_epsilon"] == 1e-3
    ours = foreign.logits(settings, values, foreign.pictures())
    print(f"original: {foreign.assert_same_logits(ours, expected):.1e}")


def test_the_standard_stem_would_not_do(small):
    found = weights.match(weights.open_source(small[0]), variables(VARIANTS["densenet_tiny"], 10))
    assert set(found.missing) == {f"stem_bn/{part}" for part in NORM_PARTS}


def names_of_121():
    """What the description above makes of (6, 12, 24, 16): the 120 convolutions counted, the norms named."""
    norms = ["linear_batch"]
    for block, layers in (("0", 6), ("1", 12), ("2", 24), ("final", 16)):
        norms += [f"dense_{block}_bottleN_{n}_batch{part}" for n in range(layers) for part in (1, 2)]
    norms += [f"trans_{block}_batch1" for block in range(3)]
    kernels = ["conv2d/kernel", *(f"conv2d_{n}/kernel" for n in range(1, 120))]
    return [*kernels, *(f"{n}/{part}" for n in norms for part in NORM_PARTS), "linear/kernel", "linear/bias"]


def test_every_variable_of_the_original_s_121_layers_has_its_place():
    names = names_of_121()
    np.random.RandomState(0).shuffle(names)
    assert layout_of(names) is ORIGINAL_LAYOUT
    places = ORIGINAL_LAYOUT.translate(names)
    assert set(places) == set(names)
    wanted = variables(VARIANTS["densenet121"].with_stem("original"), 1000)
    assert {place.variable for place in places.values()} == set(wanted)
    assert places["conv2d_13/kernel"].variable == "transition1/conv/kernel"


def test_fine_tuning_knows_a_checkpoint_of_the_original_and_builds_its_stem(small, monkeypatch):
    """Given as users do: the folder, in which no run.json lies."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")  # which the command sets, and other tests should not see
    model = cli.parse(FINETUNE, ["--restore", os.path.dirname(small[0]), "--num_classes", "3"]).model
    assert (model.model, model.stem, model.num_classes) == ("densenet_tiny", "original", 3)
    assert (model.bn_epsilon, model.preprocessing) == (1e-3, "torch")
