import csv
import glob
import os
import sys
import textwrap

import h5py
import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.errors import RunError, UsageError
from densenet_keras.training import user_callbacks
from densenet_keras.training.callbacks import Evaluate
from densenet_keras.training.evaluation import EvalResult
from tests.support import toy_training as toy
from tests.support.toy_training import ToyBackend

keras = tf.keras.callbacks


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with modules that are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def write(folder, text):
    (folder / "mine.py").write_text("import tensorflow as tf\n" + textwrap.dedent(text))


class TestLoad:
    def test_gives_the_list_from_a_module_in_the_current_folder(self, folder):
        write(folder, "def create(): return [tf.keras.callbacks.History()]")
        (callback,) = user_callbacks.load("mine:create")
        assert isinstance(callback, keras.History)

    @pytest.mark.parametrize("reference", ["mine", "mine:", ":create", ""])
    def test_needs_module_and_function(self, reference):
        with pytest.raises(UsageError, match="must read module:function"):
            user_callbacks.load(reference)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("other = 1", "defines no create"),
            ("create = 1", "create is a int, not a function"),
            ("def create(): return None", "got a NoneType; return a list"),
            ("def create(): return ['x']", "holds a str, which is not a tf.keras.callbacks.Callback"),
            ("def create(): return [tf.keras.callbacks.History]", "holds a type"),
            ("import no_such_module_at_all", "mine cannot be imported .*no_such_module_at_all.*; install"),
            ("def create(): return [tf.keras.callbacks.ReduceLROnPlateau()]", "ReduceLROnPlateau sets the"),
        ],
    )
    def test_says_what_is_wrong(self, folder, text, message):
        write(folder, text)
        with pytest.raises(UsageError, match=message):
            user_callbacks.load("mine:create")

    def test_says_where_it_looked_for_the_module(self, folder):
        with pytest.raises(UsageError, match=f"no_such_module.*{folder.name}"):
            user_callbacks.load("no_such_module:create")

    def test_an_error_of_the_function_itself_keeps_its_traceback(self, folder):
        write(folder, "def create(): return {}['key']")
        with pytest.raises(KeyError):
            user_callbacks.load("mine:create")


class TestRefusal:
    class MySchedule(keras.LearningRateScheduler):
        pass

    @pytest.mark.parametrize(
        "callback",
        [
            keras.LearningRateScheduler(lambda epoch: 0.1),
            MySchedule(lambda epoch: 0.1),
            keras.ReduceLROnPlateau(),
        ],
        ids=lambda callback: type(callback).__name__,
    )
    def test_of_rates_set_from_the_host_by_name_with_what_to_use(self, callback):
        name = type(callback).__name__
        with pytest.raises(UsageError, match=f"^callbacks: {name} .*from the host.*--lr, --lr_update"):
            user_callbacks.check([keras.History(), callback], "callbacks")

    @pytest.mark.parametrize("setting", ["histogram_freq", "embeddings_freq"])
    def test_of_what_needs_a_compiled_model(self, setting, tmp_path):
        callback = keras.TensorBoard(str(tmp_path), **{setting: 1})
        with pytest.raises(UsageError, match=f"TensorBoard with {setting}"):
            user_callbacks.check([callback], "callbacks")

    def test_of_nothing_else(self, tmp_path):
        user_callbacks.check([keras.TensorBoard(str(tmp_path)), keras.EarlyStopping(), keras.Callback()], "x")


class Training:
    """A model in a final graph, with what the loop does to it."""

    def __init__(self, callbacks, is_primary=True):
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.model = toy.model()
            self.session = tf.compat.v1.Session()
            tf.compat.v1.keras.backend.set_session(self.session)
            self.session.run(tf.compat.v1.global_variables_initializer())
            add = [weight.assign_add(tf.ones_like(weight)) for weight in self.model.weights]
            self.step = tf.group(*add)
            self.callbacks = user_callbacks.prepare(callbacks, self.model, is_primary)
        self.graph.finalize()

    def run(self, plan, before=(), **settings):
        """Every step adds one to every weight."""

        def on_step(step):
            self.session.run(self.step)
            return settings.get("metrics", lambda step: {})(step)

        with self.graph.as_default(), self.session.as_default():
            backend = ToyBackend(on_step=on_step)
            return toy.run(plan, [*before, *self.callbacks], keras_model=self.model, backend=backend)

    def weights(self):
        with self.graph.as_default(), self.session.as_default():
            return self.model.get_weights()


@pytest.fixture(autouse=True)
def clean_keras():
    yield
    tf.keras.backend.clear_session()


@pytest.mark.parametrize(
    "create",
    [
        lambda folder: keras.BaseLogger(),
        lambda folder: keras.CSVLogger(folder + "/log.csv"),
        lambda folder: keras.EarlyStopping("loss", mode="max", patience=1, restore_best_weights=True),
        lambda folder: keras.History(),
        lambda folder: keras.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
        lambda folder: keras.ModelCheckpoint(folder + "/model-{epoch}.h5"),
        lambda folder: keras.ModelCheckpoint(folder + "/model-{epoch}-{loss:.2f}.h5", save_weights_only=True),
        lambda folder: keras.ModelCheckpoint(folder + "/weights-{epoch}", save_weights_only=True),
        lambda folder: keras.ModelCheckpoint(folder + "/best.h5", "loss", save_best_only=True),
        lambda folder: keras.ModelCheckpoint(folder + "/often.h5", save_freq=8),
        lambda folder: keras.ProgbarLogger(),
        lambda folder: keras.ProgbarLogger("steps"),
        lambda folder: keras.TensorBoard(folder + "/board"),
        lambda folder: keras.TensorBoard(folder + "/board", update_freq="batch", profile_batch=0),
        lambda folder: keras.TerminateOnNaN(),
    ],
    ids=range(15),
)
@pytest.mark.parametrize("is_primary", [True, False])
def test_keras_callbacks_work_unchanged_on_a_final_graph_and_a_model_never_compiled(
    create, is_primary, tmp_path
):
    training = Training([create(str(tmp_path))], is_primary)
    training.run(toy.plan(30, iterations_per_loop=5, log_interval_steps=5))
    if not is_primary:
        assert os.listdir(str(tmp_path)) == []


def test_nothing_is_added_to_a_run_without_own_callbacks():
    assert Training([]).callbacks == []


def test_preparing_changes_no_weight():
    training = Training([keras.History()])
    kernel = training.weights()[0]
    with training.graph.as_default(), training.session.as_default():
        user_callbacks.prepare([keras.History()], training.model, True)
    np.testing.assert_array_equal(training.weights()[0], kernel)


def test_early_stopping_stops_and_restores_the_best_weights():
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.0}
    stopping = keras.EarlyStopping("loss", patience=2, restore_best_weights=True)
    training = Training([stopping])
    before = training.weights()
    reached = training.run(
        toy.plan(100, iterations_per_loop=10, log_interval_steps=10),
        metrics=lambda step: {"loss": losses[(step - 1) // 10 + 1]},
    )
    assert reached == 40
    for old, new in zip(before, training.weights()):
        np.testing.assert_allclose(new, old + 20, rtol=1e-6)  # those of the end of epoch 2


@pytest.mark.parametrize("first_evaluation", [10, 20])
def test_a_csv_has_the_columns_of_evaluation_whenever_that_happens(tmp_path, first_evaluation):
    plan = toy.plan(40, eval_interval_steps=first_evaluation)
    evaluate = Evaluate(plan, lambda step: EvalResult(step / 1.0, 90.0, 1.0, 10, 1.0))
    Training([keras.CSVLogger(str(tmp_path / "log.csv"))]).run(plan, before=[evaluate])
    with open(str(tmp_path / "log.csv")) as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    expected = [str(step / 1.0) if step % first_evaluation == 0 else "nan" for step in (10, 20, 30, 40)]
    assert [row["val_top1"] for row in rows] == expected
    assert {"loss", "total_loss", "learning_rate", "val_top5", "val_loss"} <= set(rows[0])


def test_a_weights_file_of_model_checkpoint_holds_the_weights_of_its_epoch(tmp_path):
    training = Training([keras.ModelCheckpoint(str(tmp_path / "w-{epoch}.h5"), save_weights_only=True)])
    kernel = training.weights()[0]
    training.run(toy.plan(20))
    with h5py.File(str(tmp_path / "w-1.h5"), "r") as file:
        saved = file["linear/linear/kernel:0"][...]
    np.testing.assert_allclose(saved, kernel + 10, rtol=1e-6)


class Writer(keras.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise AssertionError


def test_other_ranks_leave_files_to_the_primary(tmp_path):
    marked = Writer()
    marked._chief_worker_only = True
    callbacks = [keras.CSVLogger(str(tmp_path / "x.csv")), keras.EarlyStopping("loss"), marked]
    (kept,) = Training(callbacks, is_primary=False).callbacks
    assert isinstance(kept, keras.EarlyStopping)


def test_scratch_folders_of_other_ranks_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    os.mkdir(str(tmp_path / "temporary"))
    checkpoint = keras.ModelCheckpoint(str(tmp_path / "w-{epoch}"), save_weights_only=True)
    training = Training([checkpoint], is_primary=False)
    training.run(toy.plan(20))
    assert glob.glob(str(tmp_path / "*")) == [str(tmp_path / "temporary")]
    assert os.listdir(str(tmp_path / "temporary")) == []


def test_a_callback_that_needs_new_nodes_in_a_final_graph_is_told_so():
    wasteful = keras.LambdaCallback(on_epoch_end=lambda epoch, logs: tf.constant(epoch))
    with pytest.raises(RunError, match="a callback adds to the graph"):
        Training([wasteful]).run(toy.plan(20))


@pytest.mark.parametrize("method", ["predict", "evaluate", "fit", "predict_on_batch", "train_on_batch"])
def test_what_the_model_in_training_cannot_do_is_refused_with_the_way_to_do_it(method):
    with tf.Graph().as_default(), tf.compat.v1.Session().as_default() as session:
        model = toy.model()
        session.run(tf.compat.v1.global_variables_initializer())
        user_callbacks.prepare([tf.keras.callbacks.Callback()], model, is_primary=True)
        with pytest.raises(RunError, match=f"model.{method},.*load_model"):
            getattr(model, method)([[0.0] * 3])
