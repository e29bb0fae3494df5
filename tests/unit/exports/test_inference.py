"""The inference graph: constants alone, folded or not, the same logits."""

import collections

import numpy as np
import pytest

from densenet_keras.checkpoints.model import load_model
from densenet_keras.exports import inference
from densenet_keras.settings.config import ModelConfig
from tests.support.networks import pictures, write_run

NETWORK = ModelConfig("densenet_tiny")
LAYERS, TRANSITIONS = 6, 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


def kinds(frozen):
    return collections.Counter(node.op for node in frozen.graph_def.node)


def test_a_folded_graph_holds_constants_and_work_alone(run):
    frozen = inference.freeze(load_model(run), NETWORK, fold_bn=True, normalised=True)
    counted = kinds(frozen)
    assert counted["Conv2D"] == 1 + 2 * LAYERS + TRANSITIONS
    before_relus = LAYERS + TRANSITIONS + 1
    assert counted["Mul"] == before_relus
    assert counted["BiasAdd"] == before_relus + 1 + LAYERS + 1  # stem, a bottleneck a layer, classifier
    known = {
        "Placeholder", "Const", "Conv2D", "BiasAdd", "Mul", "Relu", "ConcatV2", "Pad", "MaxPool",
        "AvgPool", "Mean", "MatMul", "Identity", "Softmax",
    }  # fmt: skip
    assert set(counted) == known
    assert counted["Identity"] == 1  # the logits


def test_folding_is_left_on_request(run):
    frozen = inference.freeze(load_model(run), NETWORK, fold_bn=False)
    assert kinds(frozen)["FusedBatchNormV3"] == 1 + 2 * LAYERS + TRANSITIONS + 1
    assert frozen.nodes == frozen.nodes_before


@pytest.mark.parametrize("fold_bn", [True, False])
@pytest.mark.parametrize("stem", ["standard", "original"])
def test_logits_are_the_checkpoints(tmp_path, fold_bn, stem):
    model = load_model(write_run(tmp_path, stem=stem, image_size=45, bn_epsilon=0.1))
    network = ModelConfig("densenet_tiny", stem=stem, image_size=45, bn_epsilon=0.1)
    frozen = inference.freeze(model, network, fold_bn, normalised=True)
    assert frozen.nodes == len(frozen.graph_def.node)
    expected = inference.reference_logits(model, pictures(size=45))
    found = inference.run(frozen.graph_def, pictures(size=45))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_fewer_nodes_are_left_by_folding(run):
    frozen = inference.freeze(load_model(run), NETWORK, fold_bn=True)
    assert frozen.nodes < frozen.nodes_before
