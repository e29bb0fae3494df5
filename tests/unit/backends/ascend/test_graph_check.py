"""What an NPU cannot compile or loop, found in the graph."""

import json
import os

import pytest
import tensorflow as tf

from densenet_keras.backends.ascend import graph_check


def problems(*fetches, **options):
    found = graph_check.check(tf.compat.v1.get_default_graph(), fetches, **options)
    return [str(finding) for finding in found]


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


def batch(iterator=tf.compat.v1.data.make_initializable_iterator, drop_remainder=True):
    dataset = tf.data.Dataset.from_tensor_slices(tf.zeros([8, 4, 4, 3])).batch(2, drop_remainder)
    return iterator(dataset).get_next()


def test_a_step_from_iterator_to_update_passes():
    images = batch()
    kernel = tf.compat.v1.get_variable("kernel", [3, 3, 3, 2], use_resource=True)
    loss = tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME")))
    step = tf.compat.v1.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
    assert problems(tf.group(step, name="IterationOp"), loss, loop_op="IterationOp") == []


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda x: tf.py_func(lambda a: a, [x], tf.float32), "Python code"),
        (lambda x: tf.compat.v1.Print(x, [x]), "printing"),
        (lambda x: tf.as_string(x), "AsString"),
        (lambda x: tf.compat.v1.summary.scalar("loss", tf.reduce_sum(x)), "summary"),
        (lambda x: tf.cast(tf.timestamp(), tf.float32) + x, "clock"),
        (lambda x: x + tf.compat.v1.placeholder(tf.float32, [2, 4, 4, 3]), "fed by the host"),
        (lambda x: x * tf.compat.v1.placeholder_with_default(1.0, []), "fed by the host"),
        (lambda x: tf.boolean_mask(x, x[:, 0, 0, 0] > 0), "Where"),
        (lambda x: tf.image.decode_jpeg(tf.constant("")), "decoding"),
        (lambda x: tf.linalg.cholesky(tf.eye(3)), "operations of the device"),
    ],
)
def test_what_runs_on_the_host_is_named(build, words):
    with tf.name_scope("block1"):
        node = build(batch())
    found = problems(node)
    assert any(words in line for line in found), found
    assert any("block1" in line for line in found)


def test_an_assertion_in_the_step_is_found():
    images = batch()
    with tf.control_dependencies([tf.compat.v1.assert_positive(images)]):
        images = tf.identity(images)
    assert any("assertion" in line for line in problems(images))


def test_a_batch_of_unknown_size_is_found_where_it_comes_from():
    found = problems(tf.nn.relu(batch(drop_remainder=False)) * 2)
    assert len(found) == 1
    assert "IteratorGetNext" in found[0]


@pytest.mark.parametrize("loops", [True, False])
def test_one_shot_iterators_end_a_looping_session_wherever_they_are(loops):
    images = batch()
    batch(tf.compat.v1.data.make_one_shot_iterator)  # of the evaluation, say
    assert len(problems(images, loops=loops)) == int(loops)


def test_iterators_by_handle_are_refused():
    dataset = tf.data.Dataset.from_tensor_slices(tf.zeros([8, 3])).batch(2, drop_remainder=True)
    iterator = tf.compat.v1.data.make_initializable_iterator(dataset)
    feedable = tf.compat.v1.data.Iterator.from_string_handle(
        iterator.string_handle(), tf.float32, tf.TensorShape([2, 3])
    )
    assert any("feedable" in line for line in problems(feedable.get_next()))


def test_a_loop_operation_under_another_name_is_found():
    images = batch()
    with tf.name_scope("train"):
        scoped = tf.group(images.op, name="IterationOp")
    tf.group(images.op, name="IterationOp")
    second = tf.group(images.op, name="IterationOp")
    found = problems(scoped, second, loop_op="IterationOp")
    assert sorted(line.split(" ")[0] for line in found) == ["IterationOp_1", "train/IterationOp"]


def test_what_is_not_fetched_does_not_matter():
    images = batch()
    tf.py_func(lambda a: a, [images], tf.float32)
    assert problems(tf.reduce_sum(images)) == []


def test_operations_that_the_adapter_built_are_its_own_business():
    node = tf.py_func(lambda a: a, [batch()], tf.float32)
    here = os.path.dirname(os.path.abspath(__file__))
    assert problems(node)
    assert problems(node, trusted_folder=here) == []
    assert problems(node, trusted_folder=here + "_other")


def test_the_list_of_an_installed_device_goes_before_the_built_in_one(tmp_path):
    folder = tmp_path / "framework" / "built-in" / "tensorflow"
    folder.mkdir(parents=True)
    (folder / "npu_supported_ops.json").write_text(json.dumps({"Add": {"isGray": False}, "Cholesky": {}}))
    listed = graph_check.installed_operations(str(tmp_path))
    assert problems(tf.linalg.cholesky(tf.constant([[1.0]])), supported=listed) == []
    assert any("Exp" in line for line in problems(tf.exp(tf.constant(1.0)), supported=listed))
    assert graph_check.installed_operations(str(tmp_path / "nowhere")) is None
    assert graph_check.installed_operations("", str(tmp_path / "nowhere")) is None


@pytest.mark.parametrize("place", ["framework/built-in/tensorflow", "built-in/framework/tensorflow"])
def test_without_a_variable_the_list_is_found_where_the_adapter_looks(tmp_path, place):
    assert graph_check.DEFAULT_OPP_PATH == "/usr/local/Ascend/opp"
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "npu_supported_ops.json").write_text('{"Add": {}}')
    assert "Add" in (graph_check.installed_operations("", str(tmp_path)) or ())


def test_a_long_report_is_cut():
    nodes = [tf.compat.v1.placeholder(tf.float32, []) for _ in range(30)]
    text = graph_check.report(graph_check.check(tf.compat.v1.get_default_graph(), nodes), most=5)
    assert len(text.splitlines()) == 6
    assert "25 more" in text


def test_gradients_that_the_adapter_asked_for_are_still_ours():
    @tf.custom_gradient
    def halved(x):
        return x / 2, lambda upstream: tf.py_func(lambda a: a / 2, [upstream], tf.float32)

    images = batch()
    loss = tf.reduce_sum(halved(images))
    adapter = {"tf": tf}
    source = """
def gradient(loss, x):
    return tf.gradients(loss, x)[0]

def own(x):
    return tf.py_func(lambda a: a, [x], tf.float32)
"""
    exec(compile(source, "/adapter/optimizer.py", "exec"), adapter)
    assert problems(adapter["own"](images), trusted_folder="/adapter") == []
    found = problems(adapter["gradient"](loss, images), trusted_folder="/adapter")
    assert any("Python code" in line for line in found)
