import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import manifest
from densenet_keras.checkpoints import saver as checkpoint
from densenet_keras.errors import RunError, UsageError
from tests.support.paths import ROOT

FILES = ("data-00000-of-00001", "index", "manifest.json")
SHAPES = {"conv/kernel": (3, 3, 2, 4), "conv/bias": (4,), "linear/kernel": (4, 3), "linear/bias": (3,)}


class Net:
    """A few variables with optimizer slots, in a graph and session of their own."""

    def __init__(self, folder, keep=5, shapes=None, optional=(), extra=()):
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.variables = {}
            for name, shape in (shapes or SHAPES).items():
                for suffix in ("", "/Momentum"):
                    self._add(name + suffix, shape)
            for name in extra:
                self._add(name, ())
            step = tf.train.get_or_create_global_step()
            self.variables["global_step"] = step
            self.model_names = sorted(shapes or SHAPES)
            self.saver = checkpoint.Saver(self.variables, str(folder), keep, optional)
            self.tf_saver = tf.compat.v1.train.Saver(list(self.variables.values()))
            self.set_step = step.assign(tf.compat.v1.placeholder(tf.int64, [], name="step_to_set"))
            initialise = tf.compat.v1.global_variables_initializer()
        self.graph.finalize()
        self.session = tf.compat.v1.Session(graph=self.graph)
        self.session.run(initialise)

    def _add(self, name, shape):
        value = np.random.RandomState(len(self.variables)).normal(size=shape).astype(np.float32)
        with tf.compat.v1.variable_scope("", use_resource=True):
            self.variables[name] = tf.compat.v1.get_variable(name, initializer=value)

    def at(self, step):
        self.session.run(self.set_step, {"step_to_set:0": step})
        return self

    def change(self):
        """Other values for every variable but global_step."""
        for name, variable in self.variables.items():
            if name != "global_step":
                variable.load(self.session.run(variable) + 1.0, self.session)
        return self

    def values(self):
        return self.session.run(self.variables)

    def save(self, step, is_primary=True):
        return self.at(step).saver.save(self.session, step, is_primary)


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def names_in(folder):
    return sorted(os.listdir(str(folder)))


def flip_byte(path, position=-1):
    with open(path, "rb") as file:
        content = bytearray(file.read())
    content[position] ^= 0x40
    with open(path, "wb") as file:
        file.write(content)


def test_a_checkpoint_gives_back_every_variable(tmp_path):
    net = Net(tmp_path)
    path = net.save(7)
    before = net.values()
    net.change().at(99)
    assert net.saver.restore(net.session, path) == 7
    assert_same(net.values(), before)
    assert before["global_step"].dtype == np.int64


def test_what_a_reader_has_given_stays_as_it_was(tmp_path):
    net = Net(tmp_path)
    read = net.saver.reader(net.session)
    first, values = read(), net.values()
    net.change()
    assert_same(first, values)
    assert_same(read(), net.saver.read(net.session))
    assert_same(read(), net.values())


def test_our_files_are_tensorflows(tmp_path):
    net = Net(tmp_path)
    path = net.save(7)
    before = net.values()
    assert tf.train.latest_checkpoint(str(tmp_path)) == path
    net.change().at(99)
    net.tf_saver.restore(net.session, path)
    assert_same(net.values(), before)


def test_tensorflows_files_are_ours(tmp_path):
    net = Net(tmp_path).at(12)
    path = net.tf_saver.save(net.session, str(tmp_path / "model.ckpt"), global_step=12)
    before = net.values()
    net.change().at(99)
    assert checkpoint.newest(str(tmp_path)) == (path, 12)
    assert net.saver.restore(net.session, path) == 12
    assert_same(net.values(), before)


def test_the_newest_are_kept_and_the_state_file_lists_them(tmp_path):
    net = Net(tmp_path, keep=2)
    for step in (5, 10, 100):  # 100 sorts before 5 as text
        net.save(step)
    assert [c.step for c in checkpoint.list_checkpoints(str(tmp_path))] == [10, 100]
    state = tf.train.get_checkpoint_state(str(tmp_path))
    paths = [str(tmp_path / name) for name in ("model.ckpt-10", "model.ckpt-100")]
    assert (state.model_checkpoint_path, list(state.all_model_checkpoint_paths)) == (paths[1], paths)
    assert names_in(tmp_path) == [
        "checkpoint",
        *(f"model.ckpt-{step}.{ending}" for step in (10, 100) for ending in FILES),
    ]


def test_only_the_primary_writes(tmp_path):
    assert Net(tmp_path).save(3, is_primary=False) is None
    assert names_in(tmp_path) == []


def test_saving_a_step_again_replaces_it(tmp_path):
    net = Net(tmp_path)
    net.save(3)
    net.change()
    path = net.save(3)
    values = net.values()
    net.change()
    net.saver.restore(net.session, path)
    assert_same(net.values(), values)


def test_a_save_removes_what_killed_saves_left(tmp_path):
    of_killed = ("saving.tmp-model.ckpt-4.index", "saving.tmp", *(f"model.ckpt-4.{FILES[n]}" for n in (0, 2)))
    for name in of_killed:
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "notes.txt").write_bytes(b"mine")
    Net(tmp_path).save(5)
    left = set(names_in(tmp_path))
    assert left == {"checkpoint", "notes.txt", *(f"model.ckpt-5.{ending}" for ending in FILES)}


def test_an_incomplete_checkpoint_is_passed_over(tmp_path, caplog):
    net = Net(tmp_path)
    older, newer = net.save(5), net.save(6)
    os.remove(newer + ".data-00000-of-00001")
    assert checkpoint.newest(str(tmp_path)) == (older, 5)
    assert checkpoint.find_resumable(str(tmp_path)) == (older, 5, ())
    assert "model.ckpt-6" in caplog.text
    os.remove(older + ".index")
    assert checkpoint.newest(str(tmp_path)) is None
    assert checkpoint.newest(str(tmp_path / "nowhere")) is None


def test_a_missing_shard_of_several_makes_a_checkpoint_incomplete(tmp_path):
    for name in ("index", "data-00000-of-00002"):
        (tmp_path / ("model.ckpt-4." + name)).write_bytes(b"")
    assert checkpoint.newest(str(tmp_path)) is None
    with pytest.raises(UsageError, match="data-00001-of-00002 does not exist"):
        checkpoint.resolve(str(tmp_path / "model.ckpt-4"))


def test_a_folder_is_read_as_often_for_many_checkpoints_as_for_few(tmp_path, monkeypatch):
    reads = []
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: reads.append(folder) or listed(folder))
    for step in range(1, 41):
        for ending in checkpoint_files.ENDINGS:
            (tmp_path / f"model.ckpt-{step}{ending}").write_bytes(b"")
        if step in (2, 40):
            assert checkpoint.newest(str(tmp_path)) == (str(tmp_path / f"model.ckpt-{step}"), step)
            checkpoint_files.write_state(str(tmp_path), keep=0)
            reads.append(step)
    assert reads.index(2) == reads.index(40) - reads.index(2) - 1


@pytest.mark.parametrize("suffix", ["", *(f".{ending}" for ending in FILES)])
def test_a_checkpoint_is_named_by_prefix_or_file(tmp_path, suffix):
    path = Net(tmp_path).save(5)
    assert checkpoint.resolve(path + suffix) == path


def test_a_folder_names_its_newest(tmp_path):
    net = Net(tmp_path)
    newest = [net.save(step) for step in (5, 20)][-1]
    assert checkpoint.resolve(str(tmp_path)) == newest


def test_other_checkpoints_of_a_folder_are_listed_but_not_resumed(tmp_path):
    net = Net(tmp_path).at(12)
    path = net.tf_saver.save(net.session, str(tmp_path / "weights"), global_step=3)
    assert checkpoint.newest(str(tmp_path)) is None
    assert [c.path for c in checkpoint.list_checkpoints(str(tmp_path))] == [path]


@pytest.mark.parametrize("name", ["nothing", "model.ckpt-9", "model.ckpt-9.index"])
def test_a_name_without_checkpoint_is_a_usage_error(tmp_path, name):
    with pytest.raises(UsageError, match=r"does not exist.*give a"):
        checkpoint.resolve(str(tmp_path / name))


def test_an_empty_folder_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="holds no checkpoint"):
        checkpoint.resolve(str(tmp_path))


@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
def test_damage_is_a_run_error_that_names_the_file(tmp_path, part):
    net = Net(tmp_path)
    path = net.save(5)
    flip_byte(path + "." + part, 10)
    before = net.change().values()
    with pytest.raises(RunError, match=r"model\.ckpt-5 cannot be read"):
        net.saver.restore(net.session, path)
    assert_same(net.values(), before)


@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
def test_a_run_goes_on_from_the_newest_checkpoint_that_is_undamaged(tmp_path, part):
    net = Net(tmp_path, keep=1)
    newer = net.save(6)
    flip_byte(newer + "." + part, 10)
    older = Net(tmp_path, keep=0).save(5)
    found = checkpoint.find_resumable(str(tmp_path))
    assert found[:2] == (older, 5)
    assert [path for path, _ in found.damaged] == [newer]
    checkpoint_files.set_aside(newer)
    assert checkpoint.find_resumable(str(tmp_path)) == (older, 5, ())
    net.save(5)
    assert checkpoint.newest(str(tmp_path)) == (older, 5), "a damaged one does not count as the one to keep"
    aside = sorted(name for name in names_in(tmp_path) if name.startswith("damaged-"))
    assert aside == [f"damaged-model.ckpt-6.{suffix}" for suffix in FILES]


def test_a_run_does_not_start_afresh_over_damaged_checkpoints(tmp_path):
    assert checkpoint.find_resumable(str(tmp_path)) is None
    flip_byte(Net(tmp_path).save(6) + ".index", 10)
    with pytest.raises(RunError, match=r"none of the 1 checkpoints .*model\.ckpt-6"):
        checkpoint.find_resumable(str(tmp_path))


def test_broken_weights_are_not_saved(tmp_path):
    net = Net(tmp_path)
    net.save(5)
    net.variables["conv/bias"].load(np.array([1, np.inf, 2, 3], np.float32), net.session)
    with pytest.raises(RunError, match="conv/bias is no longer finite at step 6"):
        net.save(6)
    assert checkpoint.newest(str(tmp_path)) == (str(tmp_path / "model.ckpt-5"), 5)


def test_a_device_that_lost_steps_is_noticed(tmp_path):
    net = Net(tmp_path).at(1)
    with pytest.raises(RunError, match="global_step is 1 where the host has counted 10"):
        net.saver.save(net.session, 10, True)
    assert names_in(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_a_run_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match="could not be written.*--log_dir"):
        Net(tmp_path / "file" / "run").save(5)


def test_optional_variables_may_be_absent_and_keep_their_values(tmp_path):
    path = Net(tmp_path).save(5)
    net = Net(tmp_path, optional=["loss_scale"], extra=["loss_scale"])
    scale = net.values()["loss_scale"]
    net.change()
    assert net.saver.restore(net.session, path) == 5
    assert net.values()["loss_scale"] == scale + np.float32(1)
    strict = Net(tmp_path, extra=["loss_scale"])
    with pytest.raises(UsageError, match="holds no loss_scale"):
        strict.saver.restore(strict.session, path)


def test_restoring_another_shape_changes_nothing(tmp_path):
    path = Net(tmp_path).save(5)
    net = Net(tmp_path, shapes={**SHAPES, "linear/bias": (9,)})
    before = net.values()
    with pytest.raises(UsageError, match=r"linear/bias has shape \(9,\) in the model and \(3,\)"):
        net.saver.restore(net.session, path)
    assert_same(net.values(), before)


class TestBody:
    """restore_body: what a fine-tuning run takes from a checkpoint."""

    def restored(self, net, path, exclude=("linear/",)):
        return net.saver.restore_body(net.session, path, net.model_names, exclude)

    def test_all_but_the_head_is_loaded(self, tmp_path):
        source = Net(tmp_path).change()
        path = source.save(40)
        net = Net(tmp_path, shapes={**SHAPES, "linear/kernel": (4, 7), "linear/bias": (7,)})
        before = net.values()
        report = self.restored(net, path)
        assert report.loaded == ["conv/bias", "conv/kernel"]
        assert report.fresh == ["linear/bias", "linear/kernel"]
        expected = {**before, **{name: source.values()[name] for name in report.loaded}}
        assert_same(net.values(), expected)  # momentum, head and global_step are as they were

    def test_a_checkpoint_of_another_model_is_refused(self, tmp_path):
        path = Net(tmp_path, shapes={"dense/kernel": (2,)}).save(1)
        with pytest.raises(UsageError, match="holds none of the 2 variables .* such as conv/bias"):
            self.restored(Net(tmp_path), path)

    def test_a_missing_variable_is_named_with_the_nearest(self, tmp_path):
        path = Net(tmp_path, shapes={"conv/bias": (4,), "conv1/kernel": (1,)}).save(1)
        net = Net(tmp_path)
        before = net.values()
        with pytest.raises(UsageError, match=r"lacks conv/kernel \(the nearest is conv1/kernel\)"):
            self.restored(net, path)
        assert_same(net.values(), before)

    def test_a_prefix_that_excludes_nothing_is_refused(self, tmp_path):
        path = Net(tmp_path).save(1)
        net = Net(tmp_path)
        with pytest.raises(UsageError, match=r"--restore_exclude liner/: no variable .*linear/"):
            self.restored(net, path, exclude=("liner/",))
        assert self.restored(net, path, exclude=("linear/", "global_step")).fresh

    def test_another_shape_is_named_with_both_and_the_remedy(self, tmp_path):
        path = Net(tmp_path).save(1)
        net = Net(tmp_path, shapes={**SHAPES, "linear/bias": (9,)})
        expected = r"linear/bias has shape \(9,\) in the model and \(3,\) in .*--restore_exclude"
        with pytest.raises(UsageError, match=expected):
            self.restored(net, path, exclude=())


KILLED = """
    import sys
    import numpy as np, tensorflow as tf
    from densenet_keras.checkpoints import saver as checkpoint

    step = tf.train.get_or_create_global_step()
    weights = tf.get_variable("w", initializer=tf.zeros([200000]), use_resource=True)
    saver = checkpoint.Saver({"global_step": step, "w": weights}, sys.argv[1], keep=2)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for number in range(int(sys.argv[2]), 10**6):
            weights.load(np.full(200000, number, np.float32), session)
            step.load(number, session)
            saver.save(session, number, True)
            print(number, flush=True)
"""


def test_a_killed_save_leaves_a_whole_checkpoint(tmp_path):
    """The kills fall at arbitrary points of a loop that does nothing but save."""
    script = tmp_path / "saves.py"
    script.write_text(textwrap.dedent(KILLED))
    folder = tmp_path / "run"
    first = 1
    for kill in range(3):
        arguments = [sys.executable, str(script), str(folder), str(first)]
        environment = {**os.environ, "PYTHONPATH": ROOT, "TF_CPP_MIN_LOG_LEVEL": "3"}
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment) as run:
            for _ in range(4 + 3 * kill):
                done = int(run.stdout.readline())
            os.kill(run.pid, signal.SIGKILL)
        path, step = checkpoint.newest(str(folder))
        assert step >= done
        reader = tf.train.load_checkpoint(path)
        assert reader.get_tensor("global_step") == step
        np.testing.assert_array_equal(reader.get_tensor("w"), np.full(200000, step, np.float32))
        first = step + 1


@pytest.mark.parametrize("again", [False, True])
def test_every_interruption_of_publishing_leaves_a_whole_checkpoint(tmp_path, monkeypatch, again):
    """Dies before the n-th change to the folder, for every n."""
    changes = ("replace", "remove")

    class Killed(BaseException):
        pass

    for n in range(20):
        folder = tmp_path / str(n)
        net = Net(folder, keep=1)
        net.save(1)
        net.change()
        if again:
            net.save(2)
            net.change()
        left = [n]

        def dying(original, left=left):
            def change(*arguments):
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                return original(*arguments)

            return change

        with monkeypatch.context() as patch:
            for name in changes:
                patch.setattr(os, name, dying(getattr(os, name)))
            try:
                net.save(2)
                finished = True
            except Killed:
                finished = False
        found = checkpoint.newest(str(folder))
        if found is None:
            # Only while the sole checkpoint is itself being replaced.
            assert again
        else:
            net.saver.restore(net.session, found[0])
            assert manifest.read(found[0])["step"] == found[1], "no checkpoint without its manifest"
        if finished:
            assert found[1] == 2
            return
    pytest.fail("a save makes fewer changes than that")


def test_a_saver_adds_no_operation_for_a_variable(tmp_path):
    def added(names):
        with tf.Graph().as_default() as graph, tf.compat.v1.variable_scope("", use_resource=True):
            variables = {name: tf.compat.v1.get_variable(name, [2]) for name in names}
            step = tf.train.get_or_create_global_step()
            before = len(graph.get_operations())
            checkpoint.Saver({**variables, "global_step": step}, str(tmp_path), keep=1)
            return len(graph.get_operations()) - before

    assert added("abcdef") == added("a")
