"""The networks: published sizes, names, updates, gradients, round trips, refusals."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

import densenet_keras
from densenet_keras import DenseNet121, DenseNetCifar, DenseNetTiny
from densenet_keras.network import description as inspection
from densenet_keras.network.densenet import build_densenet, densenet
from densenet_keras.network.layers import DenseLayer
from densenet_keras.network.variants import STEMS, VARIANTS, cifar_variant
from densenet_keras.settings.config import MODELS, ModelConfig
from tests.support.paths import ROOT

TINY = ModelConfig(model="densenet_tiny", num_classes=10, image_size=32)
BATCH_NORMS = 1 + 3 * 2 * 2 + 2 + 1  # stem, three blocks of two layers, transitions, head


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as fresh:
        yield fresh


def images(batch=4, size=32, seed=0):
    values = np.random.RandomState(seed).normal(size=(batch, size, size, 3))
    return tf.constant(values, tf.float32)


def training_model(inputs, config=TINY):
    tf.keras.backend.set_learning_phase(1)
    return build_densenet(config, inputs)


def initialised():
    session = tf.compat.v1.Session()
    session.run(tf.compat.v1.global_variables_initializer())
    return session


def parameters(weights):
    return sum(weight.shape.num_elements() for weight in weights)


# Sizes


def test_densenet121_has_the_published_size(graph):
    tf.keras.backend.set_learning_phase(0)  # half the graph; sizes are the same
    model = DenseNet121()
    assert parameters(model.trainable_weights) == 7_978_856
    assert model.count_params() == 8_062_504
    assert model.output_shape == (None, 1000)
    assert model.output.dtype == tf.float32
    table = densenet_keras.describe(model)
    assert "multiply-adds for one image: 2,834,161,664 (2.83 G)" in table
    assert "8,062,504 (7,978,856 trainable" in table
    kinds = [row.kind for row in inspection.rows(model)]
    assert [kinds.count(kind) for kind in ("DenseBlock", "DenseLayer", "TransitionLayer")] == [4, 58, 3]
    lines = []
    model.summary(print_fn=lines.append)
    for shown in ("stem_conv", "DenseBlock", "TransitionLayer", "linear", "7,978,856"):
        assert any(shown in line for line in lines), shown


# 121 to 201: the counts that torchvision and timm publish. cifar: the paper's table 2 says 0.8 M.
@pytest.mark.parametrize(
    ("name", "trainable"),
    [
        ("densenet121", 7_978_856),
        ("densenet161", 28_681_000),
        ("densenet169", 14_149_480),
        ("densenet201", 20_013_928),
        ("densenet264", 33_337_704),
        ("densenet_cifar", 769_162),
    ],
)
def test_parameters_of_every_variant(name, trainable):
    """By arithmetic on the table of variants, so that the big ones need not be built."""
    variant = VARIANTS[name]
    k, channels = variant.growth_rate, variant.init_features
    count = channels * (3 * 3 * 3) if variant.stem == "cifar" else channels * (7 * 7 * 3 + 2)
    for number, layers in enumerate(variant.blocks):
        if number:
            count += 2 * channels + channels * (channels // 2)
            channels //= 2
        for _ in range(layers):
            count += 2 * channels + channels * 4 * k + 2 * 4 * k + 9 * 4 * k * k
            channels += k
    count += 2 * channels + (channels + 1) * variant.num_classes
    assert count == trainable


def test_cifar_network_is_that_of_the_table():
    tf.keras.backend.set_learning_phase(0)
    model = DenseNetCifar()
    assert parameters(model.trainable_weights) == 769_162
    assert model.output_shape == (None, 10)
    assert model.get_layer("block3").output_shape == (None, 8, 8, 342)


def test_every_configurable_model_has_a_variant():
    assert set(VARIANTS) == set(MODELS)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("size", [32, 45, 64])
def test_feature_sizes_of_the_variant_are_those_of_the_model(size, stem):
    variant = VARIANTS["densenet_tiny"].with_stem(stem)
    model = densenet(variant, input_shape=(size, size, 3))
    heights = [model.get_layer(f"block{n}").output_shape[1] for n in (1, 2, 3)]
    assert tuple(heights) == variant.feature_sizes(size)


def test_the_original_s_stem_has_neither_norm_nor_padding_before_its_pool():
    """7,978,728 parameters and 55, 27, 13 and 6 pixels: what its own graph has for 1,000 classes."""
    variant = VARIANTS["densenet121"].with_stem("original")
    assert variant.feature_sizes(224) == (55, 27, 13, 6)
    with tf.Graph().as_default():
        model = densenet(variant)
        assert parameters(model.trainable_weights) == 7_978_728
        assert not [layer.name for layer in model.layers if layer.name.startswith(("stem_bn", "stem_pad"))]


# Names and variables


def test_names_are_unique_and_the_same_in_every_graph():
    def names(inputs):
        with tf.Graph().as_default():
            tf.keras.backend.set_learning_phase(1)
            tf.constant(0)
            model = build_densenet(TINY, inputs() if inputs else None)
            return [weight.name for weight in model.weights]

    on_tensor = names(images)
    assert len(set(on_tensor)) == len(on_tensor) == 4 * BATCH_NORMS + 1 + 12 + 2 + 2
    assert names(images) == on_tensor == names(None)
    assert "linear/kernel:0" in on_tensor
    assert "block2/layer1/conv2/kernel:0" in on_tensor


def test_names_are_the_same_in_eager_mode():
    names = [weight.name for weight in densenet(VARIANTS["densenet_tiny"]).weights]
    with context.eager_mode():
        eager = densenet(VARIANTS["densenet_tiny"])
        assert [weight.name for weight in eager.weights] == names
        assert eager(images().numpy(), training=False).shape == (4, 10)


def test_operations_stand_beside_their_variables(graph):
    training_model(images())
    operation = graph.get_operation_by_name("block1/layer2/bn1/FusedBatchNormV3")
    assert operation.inputs[1].op.name.startswith("block1/layer2/bn1/")
    graph.get_operation_by_name("block1/layer2/bn1/gamma")


# The training form


def test_training_graph_has_each_batch_norm_once_and_no_control_flow(graph):
    x = images()
    model = training_model(x)
    count = {}
    for operation in graph.get_operations():
        count[operation.type] = count.get(operation.type, 0) + 1
    assert count["FusedBatchNormV3"] == BATCH_NORMS
    assert not {"Switch", "Merge", "If", "Placeholder", "PlaceholderWithDefault"} & set(count)
    assert len(model.get_updates_for(x)) == len(model.updates) == 2 * BATCH_NORMS


def test_updates_move_every_moving_average_by_a_tenth():
    x = images()
    model = training_model(x)
    moving = list(model.non_trainable_weights)
    stem = model.get_layer("stem_bn")
    batch_mean = tf.reduce_mean(stem.input, [0, 1, 2])
    with initialised() as session:
        before = session.run(moving)
        _, mean = session.run([model.get_updates_for(x), batch_mean])
        after = session.run(moving)
        moved = session.run(stem.moving_mean)
    assert len(moving) == 2 * BATCH_NORMS
    for variable, old, new in zip(moving, before, after):
        assert np.all(old != new), variable.name
    np.testing.assert_allclose(moved, 0.1 * mean, rtol=1e-4, atol=1e-7)


def test_inference_form_shares_variables_and_adds_no_updates(graph):
    x, others = images(), images(batch=2, seed=5)
    model = training_model(x)
    variables = len(graph.get_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES))
    logits = model(others, training=False)
    assert len(graph.get_collection(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES)) == variables
    assert len(model.updates) == len(model.get_updates_for(x)) == 2 * BATCH_NORMS
    assert model.get_updates_for(others) == []
    assert not {"Switch", "Merge"} & {operation.type for operation in graph.get_operations()}
    with initialised() as session:
        first, alone = session.run([logits, model(others[:1], training=False)])
        np.testing.assert_allclose(first[:1], alone, rtol=1e-4, atol=1e-5)  # no batch statistics
        session.run(model.get_updates_for(x))
        assert not np.allclose(session.run(logits), first)


@pytest.mark.parametrize(
    "build", [lambda x: training_model(x), lambda x: cifar(x)], ids=["densenet_tiny", "densenet_cifar"]
)
def test_every_trainable_variable_gets_a_gradient(build):
    model = build(images())
    loss = tf.reduce_mean(tf.square(model.outputs[0] - 1.0))
    gradients = tf.gradients(loss, model.trainable_weights)
    assert None not in gradients
    with initialised() as session:
        for variable, value in zip(model.trainable_weights, session.run(gradients)):
            assert np.isfinite(value).all(), variable.name
            assert np.abs(value).max() > 0, variable.name


def cifar(x):
    tf.keras.backend.set_learning_phase(1)
    return densenet(cifar_variant(depth=22, growth_rate=12), inputs=x)


def test_seed_decides_the_initial_weights_whatever_else_the_graph_holds():
    def initial(seed, nodes_before):
        with tf.Graph().as_default():
            tf.compat.v1.set_random_seed(3)
            for _ in range(nodes_before):
                tf.constant(0)
            model = build_densenet(TINY, seed=seed)
            with initialised() as session:
                return session.run(model.trainable_weights)

    first, again, other = initial(1, 0), initial(1, 5), initial(2, 0)
    for old, new in zip(first, again):
        np.testing.assert_array_equal(old, new)
    assert sum(not np.array_equal(a, b) for a, b in zip(first, other)) == 1 + 12 + 2 + 1  # kernels


# Round trips


def trained_tiny():
    """A model whose moving averages are not those of a new one."""
    model = densenet(VARIANTS["densenet_tiny"], input_shape=(32, 32, 3))
    random = np.random.RandomState(0)
    model.set_weights([random.uniform(0.5, 1.5, w.shape.as_list()) for w in model.weights])
    return model


@pytest.mark.parametrize("way", ["json", "config", "h5", "weights", "checkpoint", "clone"])
def test_model_round_trips(way, tmp_path):
    values = np.random.RandomState(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
    with tf.compat.v1.Session().as_default() as session:
        tf.keras.backend.set_session(session)
        model = trained_tiny()
        expected = model.predict(values)
        if way == "h5":
            model.save(str(tmp_path / "model.h5"))
            other = tf.keras.models.load_model(str(tmp_path / "model.h5"))
        elif way == "json":
            other = tf.keras.models.model_from_json(model.to_json())
        elif way == "config":
            other = tf.keras.Model.from_config(model.get_config())
        elif way == "clone":
            other = tf.keras.models.clone_model(model)
        else:
            path = str(tmp_path / ("weights.h5" if way == "weights" else "weights"))
            model.save_weights(path)
            other = densenet(VARIANTS["densenet_tiny"], input_shape=(32, 32, 3))
            other.load_weights(path)
        if way in ("json", "config", "clone"):
            other.set_weights(model.get_weights())
        np.testing.assert_array_equal(other.predict(values), expected)
        assert other.to_json() == model.to_json()


def test_keras_fit_trains_it():
    """The symbolic learning phase of an ordinary Keras user."""
    x = np.random.RandomState(0).normal(size=(8, 32, 32, 3)).astype(np.float32)
    y = np.arange(8) % 2
    with tf.compat.v1.Session().as_default() as session:
        tf.keras.backend.set_session(session)
        model = densenet(VARIANTS["densenet_tiny"], classes=2, input_shape=(32, 32, 3))
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        before = tf.keras.backend.get_value(model.get_layer("stem_bn").moving_mean)
        history = model.fit(x, y, epochs=8, batch_size=8, verbose=0).history["loss"]
        after = tf.keras.backend.get_value(model.get_layer("stem_bn").moving_mean)
    assert history[-1] < history[0]
    assert np.abs(after - before).max() > 0


# Arguments


def test_configuration_reaches_the_layers():
    config = ModelConfig(
        model="densenet_tiny",
        num_classes=7,
        image_size=40,
        growth_rate=6,
        bn_size=3,
        drop_rate=0.1,
        bn_momentum=0.8,
        bn_epsilon=0.02,
    )
    model = build_densenet(config)
    layer = model.get_layer("block1").dense_layers[0]
    assert isinstance(layer, DenseLayer)
    assert (layer.growth_rate, layer.bn_size, layer.drop_rate) == (6, 3, 0.1)
    for norm in (layer.bn1, model.get_layer("stem_bn"), model.get_layer("transition1").bn):
        assert (norm.momentum, norm.epsilon) == (0.8, 0.02)
    assert model.get_layer("stem_conv").filters == 12
    assert model.input_shape == (None, 40, 40, 3)
    assert model.output_shape == (None, 7)


def test_kernel_initializer_can_be_chosen():
    model = densenet(VARIANTS["densenet_tiny"], kernel_initializer="he_normal", seed=1)
    for conv in (
        model.get_layer("stem_conv"),
        model.get_layer("block1").dense_layers[0].conv2,
        model.get_layer("transition1").reduction,
    ):
        assert (conv.kernel_initializer.scale, conv.kernel_initializer.mode) == (2.0, "fan_in")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 0}, "classes=0: must be at least 1"),
        ({"input_shape": (28, 224, 3)}, r"input_shape=\(28, 224, 3\): height and width .* at least 29"),
        ({"input_shape": (224, 224)}, "must be .height, width, channels."),
        ({"growth_rate": 0}, "growth_rate=0"),
        ({"bn_size": 0}, "bn_size=0"),
        ({"drop_rate": 1.0}, "drop_rate=1.0"),
        ({"compression": 0.0}, "compression=0.0"),
        ({"bn_momentum": 1.0}, "bn_momentum=1.0"),
        ({"bn_epsilon": 0.0}, "bn_epsilon=0.0"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message, graph):
    with pytest.raises(ValueError, match=message):
        DenseNet121(**arguments)
    assert graph.get_operations() == []


@pytest.mark.parametrize("depth", [9, 4, 99, 41])
def test_impossible_depth_is_refused_with_the_next_ones(depth):
    with pytest.raises(ValueError, match=f"depth={depth}: .*6n \\+ 4.*use (10 or 16|94 or 100|40 or 46)"):
        DenseNetCifar(depth=depth)


@pytest.mark.parametrize(
    ("argument", "advice"),
    [
        ({"include_top": False}, "model.get_layer('final_relu').output"),
        ({"weights": "imagenet"}, "load_model"),
        ({"input_tensor": None}, "inputs="),
        ({"pooling": "avg"}, "model.get_layer('global_pool').output"),
        ({"classifier_activation": None}, "tf.nn.softmax"),
    ],
)
def test_arguments_of_keras_applications_are_refused_with_what_to_do(argument, advice, graph):
    for build in (DenseNet121, DenseNetCifar, DenseNetTiny):
        with pytest.raises(TypeError) as raised:
            build(**argument)
        ((name, value),) = argument.items()
        assert f"{name}={value!r} is not an argument of densenet" in str(raised.value)
        assert advice in str(raised.value)
    assert graph.get_operations() == []


def test_the_advice_for_feature_maps_holds():
    model = DenseNetTiny()
    assert model.get_layer("final_relu").output.shape.as_list() == [None, 2, 2, 32]
    assert model.get_layer("global_pool").output.shape.as_list() == [None, 32]
    assert DenseNetTiny(inputs=images(size=64)).get_layer("final_relu").output.shape.as_list()[1:3] == [4, 4]


def test_inputs_must_fit_the_configuration():
    with pytest.raises(ValueError, match="must be .*32, 32, 3"):
        build_densenet(TINY, images(size=64))
    with pytest.raises(ValueError, match="must be a float32 tensor"):
        build_densenet(TINY, tf.zeros([2, 32, 32, 3], tf.uint8))


def test_description_needs_a_fixed_size():
    model = densenet(VARIANTS["densenet_tiny"], input_shape=(None, None, 3))
    with pytest.raises(ValueError, match="fixed image size"):
        densenet_keras.describe(model)


def test_description_adds_up():
    model = densenet(VARIANTS["densenet_tiny"])
    model(images(), training=False)  # a second call must not confuse it
    listed = list(inspection.rows(model))
    assert sum(row.parameters for row in listed if row.depth == 0) == model.count_params()
    blocks = sum(row.multiply_adds for row in listed if row.kind == "DenseBlock")
    assert blocks == sum(row.multiply_adds for row in listed if row.depth == 1) > 0


# The package


def test_importing_the_package_leaves_tensorflow_alone():
    code = (
        "import sys, densenet_keras, densenet_keras.settings.config, densenet_keras.network.variants\n"
        "assert 'tensorflow' not in sys.modules\n"
        "assert 'DenseNet121' in dir(densenet_keras)\n"
        "from densenet_keras import DenseNet121, DenseNetTiny, describe, layers, load_model\n"
        "assert all(map(callable, [DenseNet121, DenseNetTiny, describe, load_model, layers.DenseBlock]))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="DenseNet999"):
        densenet_keras.DenseNet999  # noqa: B018


def test_building_prints_nothing():
    code = "from densenet_keras.network.densenet import *; densenet(VARIANTS['densenet_tiny'])"
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=True, cwd=ROOT)
    assert b"deprecated" not in done.stderr
