"""The real tf.keras.applications: its files of weights, imported, give its logits."""

import pytest
import tensorflow as tf

from densenet_keras.network.weights import source as weights
from tests.parity.fixtures import recipe
from tests.support import foreign, networks

EPSILON = 1.001e-5


def keras_model(network, inputs, **options):
    """The model on a constant input, with weights of the recipe, in the current session."""
    tf.keras.backend.set_learning_phase(0)
    model = getattr(tf.keras.applications, network)(
        weights=None, input_tensor=tf.keras.layers.Input(tensor=tf.constant(inputs)), **options
    )
    values = {}
    for variable in model.weights:
        shape = variable.shape.as_list()
        values[variable] = recipe.weight(variable.op.name, shape, range(len(shape) - 1))
        variable._keras_initialized = True  # or Keras looks at each one when it saves, for 20 s
    session = tf.compat.v1.get_default_session()
    networks.assign(session, values)
    return model, session


def logits_of(model, session):
    softmax = model.output.op
    assert softmax.type == "Softmax"
    return session.run(softmax.inputs[0])


@pytest.fixture(autouse=True)
def own_session():
    """One that optimises no graph: to save weights, Keras runs the session for each layer."""
    tf.keras.backend.clear_session()
    options = tf.compat.v1.ConfigProto()
    options.graph_options.rewrite_options.disable_meta_optimizer = True
    options.graph_options.optimizer_options.opt_level = -1
    with tf.Graph().as_default(), tf.compat.v1.Session(config=options).as_default():
        yield
    tf.keras.backend.clear_session()


@pytest.mark.parametrize("network", ["DenseNet121", "DenseNet169", "DenseNet201"])
def test_same_weights_give_the_same_logits(network, tmp_path):
    inputs = foreign.pictures()
    model, session = keras_model(network, inputs, classes=1000)
    model.save_weights(str(tmp_path / "weights.h5"))
    expected = logits_of(model, session)
    settings, values = foreign.whole(weights.open_source(str(tmp_path / "weights.h5")))
    assert settings["model"] == network.lower()
    assert (settings["bn_epsilon"], settings["num_classes"]) == (EPSILON, 1000)
    print(f"{network}: {foreign.assert_same_logits(foreign.logits(settings, values, inputs), expected):.1e}")


def test_a_model_saved_whole_tells_its_epsilon_and_momentum(tmp_path):
    """With layers of a user's own behind a backbone without its top, and the classifier called dense."""
    inputs = foreign.pictures()
    backbone, session = keras_model("DenseNet121", inputs, include_top=False)
    for layer in backbone.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.epsilon, layer.momentum = 0.002, 0.95
    pooled = tf.keras.layers.GlobalAveragePooling2D()(backbone.output)
    model = tf.keras.Model(backbone.input, tf.keras.layers.Dense(7, name="dense")(pooled))
    session.run([variable.initializer for variable in model.layers[-1].weights])
    model.save(str(tmp_path / "model.h5"))
    source = weights.open_source(str(tmp_path / "model.h5"))
    settings, _ = foreign.whole(source)
    assert (settings["bn_epsilon"], settings["bn_momentum"], settings["num_classes"]) == (0.002, 0.95, 7)
    assert weights.preprocessing_of(source, 7) is None, "somebody's own training: it must be asked for"


def test_a_file_without_its_top_has_the_whole_backbone_and_no_classifier(tmp_path):
    model, _ = keras_model("DenseNet121", foreign.pictures(), include_top=False)
    model.save_weights(str(tmp_path / "notop.h5"))
    source = weights.open_source(str(tmp_path / "notop.h5"))
    settings = weights.network_settings(source)
    assert "num_classes" not in settings
    wanted = foreign.variables(foreign.VARIANTS["densenet121"], 10)
    assert set(weights.match(source, wanted).missing) == {"linear/kernel", "linear/bias"}
