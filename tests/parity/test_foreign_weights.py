"""Weights of Torch and MindSpore: the logits here are those that their own programs computed.

Their logits stand in `fixtures`, beside the scripts that wrote them; the weights follow from the names
(`fixtures/recipe.py`).
"""

import numpy as np
import pytest

from densenet_keras.network.weights import source as weights
from tests.support import foreign
from tests.support.foreign import Fixture

NETWORKS = [
    ("torchvision.npz", "densenet_tiny", "torchvision"),
    ("torchvision.npz", "densenet121", "torchvision"),
    ("torchvision.npz", "densenet161", "torchvision"),
    ("timm.npz", "densenet_tiny", "timm"),
    ("mindspore.npz", "densenet_tiny", "MindSpore"),
    ("mindspore.npz", "densenet121", "MindSpore"),
]


@pytest.mark.parametrize(("file", "network", "program"), NETWORKS)
def test_weights_of_another_program_give_its_logits(file, network, program, tmp_path):
    fixture = Fixture(file, network)
    if program == "MindSpore":
        path = foreign.write_mindspore(tmp_path / "model.ckpt", fixture.weights())
    else:
        path = foreign.write_safetensors(tmp_path / "model.safetensors", fixture.weights(), {"format": "pt"})
    settings, values = foreign.whole(weights.open_source(path))
    assert settings["model"] == network
    assert settings["bn_epsilon"] == 1e-5
    ours = foreign.logits(settings, values, foreign.pictures())
    print(f"{file} {network}: {foreign.assert_same_logits(ours, fixture.logits):.1e}")


def test_timm_names_its_arrays_as_torchvision_does():
    """So that one layout serves both; that its networks compute the same is tested on a small one."""
    ours, theirs = Fixture("timm.npz", "densenet121"), Fixture("torchvision.npz", "densenet121")
    assert ours.shapes == theirs.shapes
    np.testing.assert_allclose(ours.logits, theirs.logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("file", ["torchvision.npz", "timm.npz", "mindspore.npz"])
def test_a_fixture_names_the_versions_that_wrote_it(file):
    assert len(Fixture(file, "densenet_tiny").versions) == 2
