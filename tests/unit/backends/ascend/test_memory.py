"""Predicted memory of the graphs of a session."""

import pytest
import tensorflow as tf

from densenet_keras import schedule
from densenet_keras.backends.ascend import loop_plan, memory
from densenet_keras.errors import RunError
from densenet_keras.settings.config import Config

GIB_OF_HALVES = [1 << 10, 1 << 10, 1 << 9]  # elements of a tensor that takes 1 GiB at 2 bytes each


def plan(images=1280, **settings):
    config = Config().replace(rank_size=1, max_epochs=10, epochs_between_evals=5, **settings)
    return schedule.plan(config, images, 50)


def described(activations, plan, **settings):
    """Lines for a training that keeps so many GiB, beside an evaluation of 2 GiB at once."""
    config = Config().replace(batch_size=1, image_size=32, **settings)
    with tf.Graph().as_default():
        kept = [tf.ones(GIB_OF_HALVES) * 2.0 for _ in range(activations)]
        with tf.name_scope("gradients"):
            read = [tf.negative(tensor) for tensor in kept]
        evaluation = tf.nn.relu(tf.nn.relu(tf.fill(GIB_OF_HALVES, 1.0) * 2.0))
        graphs = [("training", [tf.add_n(read)]), ("evaluation", [evaluation])]
        return memory.describe(graphs, [], config, plan)


def test_an_inference_graph_needs_what_is_alive_at_once():
    with tf.Graph().as_default():
        first = tf.fill([1000], 1.0) * 2.0
        second = tf.nn.relu(first)
        chain = tf.nn.relu(tf.nn.relu(second))
        assert memory.peak([chain], Config()) == pytest.approx(2 * 2000, abs=100)
        assert memory.peak([chain + first], Config()) == pytest.approx(3 * 2000, abs=100)
        exact = Config().replace(precision_mode="must_keep_origin_dtype")
        assert memory.peak([chain], exact) == pytest.approx(2 * 4000, abs=100)


def test_the_evaluation_s_graph_is_counted_beside_the_training_s():
    lines = described(4, plan())
    assert lines[0].startswith("predicted memory of one device: 4.00 GiB")
    assert lines[2] == "further graphs, each with memory of its own: evaluation 2.00 GiB; 6.00 GiB in all"
    assert len(lines) == 3


def test_evaluation_alone_needs_what_is_alive_at_once():
    with tf.Graph().as_default():
        node = tf.nn.relu(tf.fill(GIB_OF_HALVES, 1.0) * 2.0)
        lines = memory.describe([("evaluation", [node])], [], Config().replace(image_size=32), None)
    assert "activations 2.00" in lines[0]
    assert len(lines) == 2


def test_single_steps_are_a_second_graph_as_large_as_the_first():
    run = plan(iterations_per_loop=7, save_checkpoints_steps=13)
    assert loop_plan.choose(run, 0).single_steps
    assert "single steps 4.00 GiB, evaluation 2.00 GiB; 10.00 GiB in all" in described(4, run)[2]


def test_graphs_that_do_not_fit_together_are_loaded_again_and_may_share():
    run = plan(iterations_per_loop=7, save_checkpoints_steps=13)
    line = described(20, run)[3]
    assert f"{loop_plan.changes_of_graph(run)} times in this run" in line
    assert "static_memory_policy=2" in line
    assert "--iterations_per_loop 0" in line
    assert "--iterations_per_loop 0" not in described(30, plan())[3]
    shared = described(20, run, npu_option=("static_memory_policy=2",))
    assert "which share the memory of the largest" in shared[2]
    assert shared[2].endswith("20.00 GiB in all")
    assert len(shared) == 3


def test_one_graph_that_is_too_large_is_refused():
    with pytest.raises(RunError, match="lower --batch_size"):
        described(40, plan())


def test_changes_of_graph_are_counted_over_the_whole_run():
    fitting = plan()  # 40 steps an epoch in loops, two evaluations
    assert loop_plan.changes_of_graph(fitting) == 3
    # Ten times 20 steps in chunks of 7, 7 and 6: loop, step, loop, step, loop.
    odd = plan(iterations_per_loop=7, save_checkpoints_steps=20, images=640, mode="train")
    assert loop_plan.choose(odd, 0).length == 6
    assert loop_plan.changes_of_graph(odd) == 40
