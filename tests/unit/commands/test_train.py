"""What the composition root of training builds."""

import tensorflow as tf
from tensorflow.python.autograph.impl import api

from densenet_keras import backends, schedule
from densenet_keras.commands import main
from densenet_keras.commands.train import build_training
from densenet_keras.data.inputs import Inputs
from densenet_keras.data.order import Stream
from densenet_keras.topology import Topology
from densenet_keras.training.callbacks import CosineLearningRate
from tests.support import records


def test_no_function_of_the_graph_is_rewritten_by_autograph(monkeypatch, tmp_path):
    """It would take a third of the time to start, and nothing in the graph needs it."""
    data_dir = records.write_noise(tmp_path / "data", train=8, validation=4, shards=1)
    given = ["--model", "densenet_tiny", "--num_classes", "10", "--batch_size", "4", "--data_dir", data_dir]
    config = main.parse("train", [*given, "--max_train_steps", "2", "--mode", "train_and_evaluate"])
    inputs = Inputs(config, Topology(), train=True, evaluate=True)
    plan = schedule.plan(config, inputs.train_images, inputs.eval_images)
    backend = backends.create(config, Topology())
    rewritten = []
    monkeypatch.setattr(api.conversion, "convert", lambda *given: rewritten.append(given))
    with tf.Graph().as_default():
        rate = CosineLearningRate(config.optimizer, plan.steps_per_epoch)
        build_training(config, plan, Stream(0), inputs, rate, backend)
    assert not rewritten
