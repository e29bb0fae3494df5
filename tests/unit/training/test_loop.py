import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.training import loop
from tests.support import toy_training as toy
from tests.support.toy_training import Recorder, ToyBackend

Lambda = tf.keras.callbacks.LambdaCallback


@pytest.fixture
def keras_graph():
    with tf.Graph().as_default():
        yield
    tf.keras.backend.clear_session()


def stop_at(*steps):
    """A callback that stops training as an EarlyStopping would, once the run reaches a step."""

    def check(batch, logs):
        if logs.progress.step in steps:
            stopper.model.stop_training = True

    stopper = Lambda()
    stopper.on_train_batch_end = check
    return stopper


def hooks_of_fit(epochs, steps):
    recorder = Recorder()
    model = toy.model()
    inputs = tf.keras.layers.Input([3])
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(2)(inputs))
    model.compile("sgd", "mse")
    images, targets = np.ones([4 * steps, 3]), np.ones([4 * steps, 2])
    model.fit(images, targets, batch_size=4, epochs=epochs, verbose=0, callbacks=[recorder], shuffle=False)
    return recorder


def test_hooks_of_chunks_of_one_step_are_those_of_fit(keras_graph):
    ours = Recorder()
    toy.run(toy.plan(total_steps=6, steps_per_epoch=3), [ours])
    theirs = hooks_of_fit(epochs=2, steps=3)
    assert ours.names() == theirs.names()
    for (name, _, our_logs), (_, _, their_logs) in zip(ours.calls, theirs.calls):
        assert set(their_logs or {}) <= set(our_logs or {}), name
        if their_logs and "size" in their_logs:
            assert (our_logs["batch"], our_logs["size"]) == (their_logs["batch"], their_logs["size"])


def test_parameters_are_those_of_fit(keras_graph):
    ours, theirs = Recorder(), hooks_of_fit(epochs=2, steps=3)
    toy.run(toy.plan(total_steps=6, steps_per_epoch=3), [ours])
    assert set(theirs.params) <= set(ours.params)
    for name in ("epochs", "samples", "do_validation"):
        assert ours.params[name] == theirs.params[name], name
    assert ours.params["steps"] == 3


@pytest.mark.parametrize("longest", [1, 4, 100])
def test_no_step_is_lost_and_every_boundary_is_hit(longest):
    plan = toy.plan(
        23, iterations_per_loop=longest, log_interval_steps=5, save_interval_steps=7, steps_per_epoch=10
    )
    backend, recorder = ToyBackend(), Recorder()
    assert toy.run(plan, [recorder], backend=backend) == 23
    assert sum(backend.counts) == backend.step == 23
    ends = np.cumsum(backend.counts)
    assert {5, 7, 10, 14, 15, 20, 21, 23} <= set(ends)
    batches = [batch for name, batch, _ in recorder.calls if name == "on_batch_end"]
    assert batches == [(end - 1) % 10 for end in ends]
    losses = [logs["loss"] for name, _, logs in recorder.calls if name == "on_batch_end"]
    np.testing.assert_allclose(losses, ends / 100)  # of each chunk's last step
    epochs = [number for name, number, _ in recorder.calls if name in ("on_epoch_begin", "on_epoch_end")]
    assert epochs == [0, 0, 1, 1, 2, 2]


def test_logs_are_plain_numbers_and_size_counts_images_of_the_chunk():
    recorder = Recorder()
    toy.run(toy.plan(10, iterations_per_loop=4, log_interval_steps=10), [recorder])
    logs = [logs for name, _, logs in recorder.calls if name == "on_batch_end"]
    assert [entry["size"] for entry in logs] == [16, 16, 8]
    assert all(type(value) in (int, float) for entry in logs for value in entry.values())


@pytest.mark.parametrize("longest", [1, 10])
def test_losses_of_an_epoch_are_means_over_it_and_other_scalars_its_last(longest):
    recorder = Recorder()
    backend = ToyBackend(on_step=lambda step: {"learning_rate": step / 10})
    toy.run(toy.plan(20, log_interval_steps=20, iterations_per_loop=longest), [recorder], backend=backend)
    (first, second) = [logs for name, _, logs in recorder.calls if name == "on_epoch_end"]
    if longest == 1:
        assert first["loss"] == pytest.approx(np.mean(np.arange(1, 11)) / 100)
    else:
        assert first["loss"] == pytest.approx(10 / 100)  # the only one the host has seen
    assert (first["learning_rate"], second["learning_rate"]) == (1.0, 2.0)
    assert "batch" not in first


def test_resuming_within_an_epoch_begins_that_epoch_once():
    recorder = Recorder()
    assert toy.run(toy.plan(20), [recorder], first_step=7) == 20
    names = recorder.names()
    assert names[:4] == [
        ("on_train_begin", None),
        ("on_epoch_begin", 0),
        ("on_batch_begin", 7),
        ("on_batch_end", 7),
    ]
    assert [name for name in names if "epoch" in name[0]] == [
        ("on_epoch_begin", 0),
        ("on_epoch_end", 0),
        ("on_epoch_begin", 1),
        ("on_epoch_end", 1),
    ]


def test_a_run_that_is_already_complete_only_begins_and_ends():
    recorder = Recorder()
    assert toy.run(toy.plan(5), [recorder], first_step=5) == 5
    assert recorder.names() == [("on_train_begin", None), ("on_train_end", None)]


def test_stop_training_ends_the_epoch_and_the_training():
    recorder = Recorder()
    model = toy.BareModel()
    assert toy.run(toy.plan(20), [stop_at(13), recorder], keras_model=model) == 13
    assert recorder.names()[-3:] == [("on_batch_end", 2), ("on_epoch_end", 1), ("on_train_end", None)]
    assert model.stop_training
    assert not recorder.calls[-1][2].interrupted


def test_stop_training_in_on_epoch_end_takes_effect_at_that_step():
    stopper = Lambda()
    stopper.on_epoch_end = lambda epoch, logs: setattr(stopper.model, "stop_training", True)
    assert toy.run(toy.plan(30), [stopper]) == 10


def test_a_signal_leaves_the_epoch_open_for_the_next_run():
    stop, recorder = toy.Stop(), Recorder()
    at_4 = Lambda(on_batch_end=lambda batch, logs: setattr(stop, "signal", 15 * (batch == 3)))
    assert toy.run(toy.plan(20), [at_4, recorder], stop=stop) == 4
    assert recorder.names()[-2:] == [("on_batch_end", 3), ("on_train_end", None)]
    assert recorder.calls[-1][2].interrupted


def test_there_is_something_to_save_from_the_first_chunk_on():
    stop, may_finish = toy.Stop(), []
    watch = Lambda(on_batch_begin=lambda batch, logs: may_finish.append(stop.may_finish))
    toy.run(toy.plan(3), [watch], stop=stop)
    assert may_finish == [False, True, True]


def test_a_signal_in_the_last_chunk_changes_nothing():
    stop, recorder = toy.Stop(), Recorder()
    stop.signal = 15
    assert toy.run(toy.plan(1), [recorder], stop=stop) == 1
    assert recorder.names()[-2:] == [("on_epoch_end", 0), ("on_train_end", None)]
    assert not recorder.calls[-1][2].interrupted


@pytest.mark.parametrize(
    ("request_of_others", "interrupted"),
    [
        (loop.STOP_TRAINING, False),
        (7 * loop.STOP_TRAINING, False),
        (loop.INTERRUPT, True),
        (7 * loop.INTERRUPT + 7 * loop.STOP_TRAINING, True),
    ],
)
def test_all_ranks_stop_at_the_same_step_in_the_same_way(request_of_others, interrupted):
    """This rank asks for nothing; others do after step 6."""
    requests, recorder = [], Recorder()

    def agree(request):
        requests.append(request)
        return request + (request_of_others if len(requests) == 6 else 0)

    model = toy.BareModel()
    assert toy.run(toy.plan(20), [recorder], agree=agree, keras_model=model) == 6
    assert model.stop_training == (request_of_others % loop.INTERRUPT > 0)
    assert requests == [0] * 6
    assert recorder.calls[-1][2].interrupted == interrupted
    assert (("on_epoch_end", 0) in recorder.names()) == (not interrupted)


def test_every_rank_agrees_after_every_chunk_also_when_it_stops():
    requests = []
    toy.run(toy.plan(20), [stop_at(3)], agree=lambda request: requests.append(request) or request)
    assert requests == [0, 0, loop.STOP_TRAINING]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_passes_on_and_only_closes(error):
    closed = []

    class Closing(Recorder):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def close(self):
            closed.append(self.name)

    def fail(step):
        if step == 3:
            raise error
        return {}

    first, second = Closing("first"), Closing("second")
    with pytest.raises(error):
        toy.run(toy.plan(9), [first, second], backend=ToyBackend(on_step=fail))
    assert first.names()[-1] == ("on_batch_begin", 2)
    assert closed == ["second", "first"]


def test_only_first_runs_of_a_length_may_take_long_and_compilation_is_no_lesson():
    watchdog = toy.Watchdog()
    toy.run(toy.plan(10, iterations_per_loop=4, log_interval_steps=10), [], watchdog=watchdog)
    assert [seconds for _, seconds in watchdog.phases] == [60.0, 60.0]  # 4 steps, then 2
    assert len(watchdog.beats) == 3
    assert watchdog.beats[0] is None
    assert all(seconds is not None for seconds in watchdog.beats[1:])


def test_the_backends_own_scalars_reach_the_logs():
    backend, recorder = ToyBackend(), Recorder()
    backend.extra_metrics = lambda metrics: {"skipped_steps": 2.0 + metrics["loss"]}
    toy.run(toy.plan(1), [recorder], backend=backend)
    assert recorder.calls[3][2]["skipped_steps"] == 2.01


class StoppedBackend(ToyBackend):
    """Makes steps one by one; a signal comes in the course of step `at`."""

    def __init__(self, stop, at, first_step=0):
        super().__init__(first_step)
        self.stop, self.at = stop, at

    def run_steps(self, session, step, count, pulse=None):
        done = 0
        while done < count:
            done += 1
            result = super().run_steps(session, step, 1)
            if self.step == self.at:
                self.stop.request(15)
            if pulse():
                break
        return result._replace(untimed_steps=0, stopped_after=done if done < count else None)


def test_a_signal_stops_between_the_steps_of_a_chunk_and_the_next_run_ends_it():
    stop, recorder = toy.Stop(), Recorder()
    plan = toy.plan(20, iterations_per_loop=10, log_interval_steps=0)
    assert toy.run(plan, [recorder], backend=StoppedBackend(stop, 13), stop=stop) == 13
    assert recorder.calls[-1][0] == "on_train_end"
    assert recorder.calls[-1][2].interrupted
    assert [logs["size"] for name, _, logs in recorder.calls if name == "on_batch_end"] == [40, 12]
    assert list(plan.chunks(13)) == [(13, 20)]


def test_every_step_that_the_host_makes_is_progress():
    watchdog, stop = toy.Watchdog(), toy.Stop()
    plan, backend = toy.plan(10, iterations_per_loop=10), StoppedBackend(stop, 99)
    toy.run(plan, [], backend=backend, stop=stop, watchdog=watchdog)
    assert len(watchdog.beats) == 10
    assert watchdog.beats[0] is None, "it compiles"
    assert None not in watchdog.beats[1:]
