"""What of a step ranks exchange, counted in graphs that nobody runs."""

import pytest
import tensorflow as tf

from densenet_keras import backends
from densenet_keras.network.densenet import build_densenet
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology
from densenet_keras.training import statistics, steps

TINY = {"model": "densenet_tiny", "num_classes": 10, "image_size": 32, "growth_rate": 4, "rank_size": 2}
ADDRESSES = ("127.0.0.1:1", "127.0.0.1:2")  # nobody listens there, nobody connects


def backend_of(config):
    if config.device.backend == "ascend":
        return backends.host(config).create_for_plan(config, Topology(0, 2, 0, 2))
    return backends.create(config, Topology(0, 2, 0, 2, ADDRESSES))


def built(**settings):
    """(backend, model, step) of a training step in the default graph."""
    config = Config().replace(**{**TINY, "backend": "tensorflow", **settings})
    backend = backend_of(config)
    tf.keras.backend.set_learning_phase(1)
    with backend.placement():
        batch = tf.zeros([2, 32, 32, 3], tf.uint8), tf.zeros([2], tf.int32)
        model, step = steps.build_train_step(
            lambda images: build_densenet(config.model, images), batch, config, lambda step: 0.1, backend
        )
    return backend, model, step


def operations(step):
    seen, stack = set(), [step.train_op, *(metric.op for metric in step.metrics.values())]
    while stack:
        op = stack.pop()
        if op not in seen:
            seen.add(op)
            stack.extend([tensor.op for tensor in op.inputs] + list(op.control_inputs))
    return seen


@pytest.mark.parametrize(("mode", "collectives"), [("step", 2), ("save", 1)])
def test_collectives_of_a_step_on_the_cpu(mode, collectives):
    """Gradients, losses and the request to stop share one; statistics have theirs, or none."""
    with tf.Graph().as_default():
        _, _, step = built(statistics_average=mode)
        assert sum(op.type == "CollectiveReduce" for op in operations(step)) == collectives


@pytest.mark.parametrize("mode", ["step", "save"])
def test_an_npu_exchanges_losses_and_statistics_in_one_collective(mode):
    """Beside the gradients, which the adapter's optimizer exchanges."""
    with tf.Graph().as_default():
        _, _, step = built(backend="ascend", statistics_average=mode)
        totals = {op.name for op in operations(step) if op.name.startswith("sum_over_ranks/")}
        assert totals == {"sum_over_ranks/Identity"}


def test_only_statistics_that_the_step_changes_are_averaged():
    config = Config().replace(**TINY)
    with tf.Graph().as_default():
        backend = backend_of(config.replace(backend="tensorflow"))
        tf.keras.backend.set_learning_phase(1)
        images = tf.zeros([2, 32, 32, 3])
        model = build_densenet(config.model, images, frozen=("stem", "block1", "block2"))
        updates = model.get_updates_for(images)
        averaged = {v.op.name for v in statistics.in_each_step(model, updates, config, backend)}
        frozen = {v.op.name for v in model.non_trainable_weights} - averaged
        assert averaged
        assert all(name.rpartition("/")[2].startswith("moving_") for name in averaged)
        assert {"stem_conv/kernel", "stem_bn/moving_mean"} <= frozen
        kept = build_densenet(config.model, images, keep_statistics=True)
        assert statistics.in_each_step(kept, kept.get_updates_for(images), config, backend) == []


def test_what_runs_before_saving_averages_the_same_variables():
    with tf.Graph().as_default():
        backend, model, _ = built(statistics_average="save")
        config = backend.config
        operation = statistics.before_saving(model, config, backend)
        assigned = {op.inputs[0].op.name for op in operation.control_inputs}
        assert assigned == {variable.op.name for variable in model.non_trainable_weights}
        assert statistics.before_saving(model, config.replace(statistics_average="step"), backend) is None
