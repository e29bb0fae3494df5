"""Two CPU ranks whose moving statistics are averaged in every step, or before saving only."""

import os

import numpy as np
import pytest

from tests.support.ranks import run_ranks

STEPS, HALF = 6, 3


def trainings(topology):
    """What each run left in its last checkpoint, and this rank's own weights in its course."""
    import tensorflow as tf

    from densenet_keras.commands import main as cli
    from densenet_keras.commands.train import train
    from densenet_keras.rank import Rank
    from densenet_keras.stop import StopFlag
    from densenet_keras.watchdog import Watchdog

    results = {}

    class Record(tf.keras.callbacks.Callback):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def on_train_batch_end(self, batch, logs):
            self.keep(f"{logs.progress.step}")

        def keep(self, when):
            values = zip(self.model.weights, self.model.get_weights())
            results.update((f"{self.name}/{when}/{variable.op.name}", value) for variable, value in values)

    def run(name, steps, mode):
        tf.keras.backend.clear_session()
        config = cli.parse("train", [
            "--backend", "tensorflow", "--rank_size", "2", "--synthetic_data", "--model", "densenet_tiny",
            "--growth_rate", "4", "--num_classes", "10", "--image_size", "32", "--batch_size", "2",
            "--intra_op_threads", "1", "--mode", "train", "--iterations_per_loop", "1", "--lr", "0.01",
            "--save_checkpoints_steps", str(HALF), "--max_train_steps", str(steps), "--log_dir", name,
            "--statistics_average", mode,
        ])  # fmt: skip
        rank = Rank(topology, StopFlag(), Watchdog(600.0, 600.0))
        train(config, [Record(name)], rank)
        reader = tf.compat.v1.train.NewCheckpointReader(os.path.join(name, f"model.ckpt-{steps}"))
        saved = reader.get_variable_to_shape_map()
        results.update((f"{name}/saved/{variable}", reader.get_tensor(variable)) for variable in saved)

    run("each_step", STEPS, "step")
    run("whole", STEPS, "save")
    run("continued", HALF, "save")
    run("continued", STEPS, "save")
    return results


@pytest.fixture(scope="module")
def ranks():
    return run_ranks(f"{__name__}:trainings", size=2, timeout_seconds=400)


def part(rank, prefix, kind=""):
    values = {name[len(prefix) :]: value for name, value in rank.items() if name.startswith(prefix)}
    assert values
    return {name: value for name, value in values.items() if kind in name}


def assert_same(one, other):
    assert set(one) == set(other)
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_a_continued_run_that_averages_before_saving_equals_one_in_a_go(ranks):
    assert_same(part(ranks[0], "continued/saved/"), part(ranks[0], "whole/saved/"))


def test_saved_statistics_are_those_of_both_ranks(ranks):
    for step in (HALF, STEPS):
        assert_same(part(ranks[0], f"whole/{step}/"), part(ranks[1], f"whole/{step}/"))
    saved = part(ranks[0], "whole/saved/", "/moving_")
    assert_same(part(ranks[0], f"whole/{STEPS}/", "/moving_"), saved)
    # Between saves each rank has its own.
    own = [part(rank, f"whole/{STEPS - 1}/", "/moving_mean") for rank in ranks]
    assert any((own[0][name] != own[1][name]).any() for name in own[0])


def test_both_ways_to_average_train_the_same_network(ranks):
    each_step, before_saving = part(ranks[0], "each_step/saved/"), part(ranks[0], "whole/saved/")
    for name, value in each_step.items():
        if "/moving_" in name:
            np.testing.assert_allclose(before_saving[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(before_saving[name], value, err_msg=name)
    for step in range(1, STEPS + 1):
        assert_same(part(ranks[0], f"each_step/{step}/"), part(ranks[1], f"each_step/{step}/"))
