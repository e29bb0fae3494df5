"""From a file of another program to an evaluated and a fine-tuned network, by the commands of users."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.parity.fixtures import recipe
from tests.support import commands, foreign, records
from tests.support.commands import variables
from tests.support.foreign import Fixture
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return records.write_noise(tmp_path_factory.mktemp("data"), size=(40, 40))


def test_finetune_starts_from_a_file_and_trains_the_network_that_it_is_of(tmp_path, data_dir):
    """With two ranks, and a learning rate at which nothing moves: what is saved is what was loaded."""
    path = foreign.write_mindspore(tmp_path / "a.ckpt", Fixture("mindspore.npz", "densenet_tiny").weights())
    output = commands.run(
        "finetune.py", "--restore", path, "--preprocessing", "torch", "--num_classes", 10, "--lr", 1e-12,
        "--data_dir", data_dir, "--batch_size", 4, "--rank_size", 2, "--max_train_steps", 1,
        "--mode", "train", "--log_dir", tmp_path / "run",
    )  # fmt: skip
    assert f"loaded 79 variables from {path} (MindSpore (MindCV)); not loaded, random: linear/" in output
    held = variables(tmp_path / "run" / "model.ckpt-1")
    kernel = recipe.torch_weight("features.conv0.weight", (16, 3, 7, 7))
    np.testing.assert_allclose(held["stem_conv/kernel"], kernel.transpose(2, 3, 1, 0), atol=1e-6)


def test_an_imported_run_is_evaluated_with_what_it_needs(tmp_path, data_dir):
    path = foreign.write_safetensors(tmp_path / "a", Fixture("timm.npz", "densenet_tiny").weights())
    call = [sys.executable, "-m", "densenet_keras", "import", path, "--log_dir", str(tmp_path / "run")]
    done = subprocess.run(
        [*call, "--preprocessing", "torch"],
        cwd=ROOT,
        env=commands.environment(),
        capture_output=True,
        check=True,
    )
    assert b"loaded: 81 of 81 variables" in done.stdout
    assert done.stderr == b"", "TensorFlow has nothing to say"
    commands.run(
        "evaluate.py", "--eval_dir", tmp_path / "run", "--data_dir", data_dir, "--batch_size", 8, "--log_dir",
        tmp_path / "evaluation", "--json", tmp_path / "table.json",
    )  # fmt: skip
    assert os.path.getsize(str(tmp_path / "table.json")) > 100
