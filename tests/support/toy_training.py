"""A training run without training: a backend that counts steps, and what the loop needs around it."""

import contextlib

import tensorflow as tf

from densenet_keras.backends.base import ChunkResult, Step
from densenet_keras.rank import Rank
from densenet_keras.schedule import RunPlan
from densenet_keras.topology import Topology
from densenet_keras.training import loop


def plan(total_steps, **changes):
    sizes = {
        "train_images": 40,
        "eval_images": 10,
        "global_batch": 4,
        "steps_per_epoch": 10,
        "log_interval_steps": 1,
        "save_interval_steps": 1000,
        "eval_interval_steps": 0,
        "iterations_per_loop": 1,
    }
    return RunPlan(total_steps=total_steps, **{**sizes, **changes})


class ToyBackend:
    """Metrics of step s (from 1): loss s / 100, total_loss 1 + s / 100, learning_rate 0.1."""

    def __init__(self, first_step=0, on_step=None):
        self.step = first_step
        self.counts = []
        self.on_step = on_step or (lambda step: {})

    def run_steps(self, session, step, count, pulse=None):
        untimed_steps = 0 if self.counts else count
        self.counts.append(count)
        metrics = {}
        for _ in range(count):
            self.step += 1
            metrics = {"loss": self.step / 100, "total_loss": 1 + self.step / 100, "learning_rate": 0.1}
            metrics.update(self.on_step(self.step))
        return ChunkResult(metrics, 0.0, untimed_steps)

    def extra_metrics(self, metrics):
        return {}


class Stop:
    signal = 0
    may_finish = False

    def let_finish(self):
        self.may_finish = True

    def request(self, signum):
        self.signal = self.signal or signum


class Watchdog:
    """Notes what it is told."""

    def __init__(self):
        self.beats, self.phases = [], []

    def beat(self, seconds=None, compiled=False):
        self.beats.append(None if compiled else seconds)

    def at(self, step):
        pass

    def unlimited(self):
        return contextlib.nullcontext()

    def waiting(self):
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def phase(self, what, timeout_seconds, kind=""):
        self.phases.append((what, timeout_seconds))
        yield


def model():
    """A small Keras model that has never been compiled."""
    images = tf.keras.layers.Input(tensor=tf.ones([4, 3]))
    return tf.keras.Model(images, tf.keras.layers.Dense(2, name="linear")(images))


class Recorder(tf.keras.callbacks.Callback):
    """Lists the hooks called, as (name, epoch or batch, logs)."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def names(self):
        return [(name, number) for name, number, _ in self.calls]

    def on_train_begin(self, logs=None):
        self.calls.append(("on_train_begin", None, logs))

    def on_train_end(self, logs=None):
        self.calls.append(("on_train_end", None, logs))

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("on_epoch_begin", epoch, logs))

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("on_epoch_end", epoch, logs))

    def on_batch_begin(self, batch, logs=None):
        self.calls.append(("on_batch_begin", batch, dict(logs)))

    def on_batch_end(self, batch, logs=None):
        self.calls.append(("on_batch_end", batch, dict(logs)))


def run(plan, callbacks, first_step=0, backend=None, keras_model=None, **arguments):
    """loop.run with toys for what is not given; returns the step reached."""
    given = {"stop": Stop(), "watchdog": Watchdog(), "agree": lambda request: request, "session": None}
    given.update(arguments)
    work = loop.Run(
        session=given["session"],
        backend=backend or ToyBackend(first_step),
        model=keras_model if keras_model is not None else BareModel(),
        step=Step(train_op=None, metrics={"loss": None, "total_loss": None, "learning_rate": None}),
        plan=plan,
        first_step=first_step,
    )
    rank = Rank(Topology(), given["stop"], given["watchdog"])
    timeout_seconds = given.get("first_step_timeout_seconds", 60.0)
    return loop.run(work, callbacks, rank, given["agree"], timeout_seconds)


class BareModel:
    """What the loop and most callbacks touch of a model."""

    stop_training = True  # the loop resets it
