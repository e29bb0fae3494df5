"""One CPU rank in this process: graph structure, session options, refusals."""

import os
import socket

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.backends.tensorflow import backend as backend_module
from densenet_keras.backends.tensorflow import local
from densenet_keras.backends.tensorflow.backend import TensorFlowBackend
from densenet_keras.errors import RunError, UsageError
from densenet_keras.settings.config import Config
from densenet_keras.topology import Topology
from densenet_keras.training import steps

CONFIG = Config().replace(intra_op_threads=2, data_threads=3, first_step_timeout_seconds=1)


@pytest.fixture
def backend():
    return TensorFlowBackend(CONFIG, Topology())


def build(backend, metrics=None):
    """A step on one weight, and the weight."""
    weight = tf.compat.v1.get_variable("weight", [3], use_resource=True)
    step = steps.build_step(
        backend,
        tf.compat.v1.train.MomentumOptimizer(0.5, 0.9),
        steps.StepParts(
            losses={"loss": tf.reduce_sum(weight * weight)},
            minimize="loss",
            variables=[weight],
            updates=[],
            metrics=metrics or {},
        ),
        tf.compat.v1.train.get_or_create_global_step(),
    )
    return step, weight


def ancestors(operation):
    found, stack = set(), [operation]
    while stack:
        current = stack.pop()
        if current not in found:
            found.add(current)
            stack.extend([tensor.op for tensor in current.inputs] + list(current.control_inputs))
    return found


def test_every_metric_is_read_before_any_weight_changes(backend):
    with tf.Graph().as_default() as graph:
        clock = tf.timestamp()
        step, _ = build(backend, {"clock": clock})
        updates = [op for op in graph.get_operations() if op.type == "ResourceApplyMomentum"]
        assert updates
        for update in updates:
            assert {metric.op for metric in step.metrics.values()} <= ancestors(update)


def test_the_train_op_is_an_operation_and_steps_by_one(backend):
    with tf.Graph().as_default() as graph:
        step, _ = build(backend)
        assert isinstance(step.train_op, tf.Operation)
        with backend.session(graph) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            assert backend.run_steps(session, step, 3).untimed_steps == 1
            assert backend.run_steps(session, step, 2).untimed_steps == 0
            assert session.run(tf.compat.v1.train.get_global_step()) == 5


def test_a_chunk_has_at_least_one_step(backend):
    with tf.Graph().as_default() as graph:
        step, _ = build(backend)
        with backend.session(graph) as session, pytest.raises(ValueError, match="count=0"):
            backend.run_steps(session, step, 0)


def test_waits_for_data_are_summed_over_the_chunk(backend):
    pause_seconds = 0.01

    def slow(number):
        import time

        time.sleep(pause_seconds)  # the slow input that is to be measured
        return number

    with tf.Graph().as_default() as graph:
        dataset = tf.data.Dataset.range(100).map(lambda n: tf.numpy_function(slow, [n], tf.int64))
        iterator = tf.compat.v1.data.make_initializable_iterator(dataset)
        number = backend.measure_get_next(iterator)
        step, _ = build(backend, {"number": tf.cast(number, tf.float32)})
        with backend.session(graph) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            session.run(iterator.initializer)
            chunk = backend.run_steps(session, step, 4)
    assert chunk.data_wait_seconds >= 3 * pause_seconds  # the first step compiles, and is not timed
    assert chunk.metrics["number"] == 3.0


def test_a_step_without_measured_input_does_not_know_its_wait(backend):
    with tf.Graph().as_default() as graph:
        step, _ = build(backend)
        with backend.session(graph) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            graph.finalize()
            assert np.isnan(backend.run_steps(session, step, 2).data_wait_seconds)


def test_an_error_in_a_step_says_what_and_where(backend):
    """Messages that name damaged records come out of the graph so."""

    def fail():
        raise ValueError("a damaged record: seven")

    with tf.Graph().as_default() as graph:
        failing = tf.numpy_function(fail, [], tf.float32, name="reads_records")
        failing.set_shape([])
        step, _ = build(backend, {"number": failing})
        with backend.session(graph) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            with pytest.raises(tf.errors.OpError, match="a damaged record: seven") as caught:
                backend.run_steps(session, step, 2)
            assert "reads_records" in caught.value.message


def test_metrics_are_those_of_session_run_in_any_order(backend):
    with tf.Graph().as_default() as graph:
        counted = tf.compat.v1.train.get_or_create_global_step()
        wide = {f"number_{n}": tf.cast(counted, tf.float64) + n for n in (3, 1, 2)}
        times = tf.compat.v1.get_variable("times", [], initializer=tf.zeros_initializer(), use_resource=True)
        step, weight = build(backend, {**wide, "times": times.assign_add(2.0)})
        with backend.session(graph) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            session.run(weight.assign([1.0, 2.0, 3.0]))
            before = session.run({name: step.metrics[name] for name in [*wide, "loss"]})
            found = backend.run_steps(session, step, 1).metrics
            assert found["times"] == session.run(times) == 2.0
    assert {name: found[name] for name in before} == before
    assert list(found) == list(step.metrics)
    assert all(type(value) is float for value in found.values())


def test_keras_shares_the_session_inside_and_not_after(backend):
    with tf.Graph().as_default() as graph:
        with backend.session(graph) as session:
            assert tf.keras.backend.get_session() is session
            assert not graph.finalized
        assert tf.keras.backend.get_session() is not session


def test_threads_follow_the_configuration(backend):
    with tf.Graph().as_default() as graph, backend.session(graph) as session:
        assert session._config.intra_op_parallelism_threads == 2
        assert session._config.inter_op_parallelism_threads >= 3 + 1  # every decoder, and the step


def test_several_ranks_need_an_address_each():
    with pytest.raises(UsageError, match="2 ranks need as many addresses, got 1"):
        TensorFlowBackend(CONFIG, Topology(0, 2, 0, 2, ("127.0.0.1:1",)))


def test_a_host_with_too_few_gpus_is_refused(monkeypatch):
    monkeypatch.setattr(tf.config.experimental, "list_physical_devices", lambda kind: ["GPU:0"])
    addresses = ("127.0.0.1:1", "127.0.0.1:2")
    with pytest.raises(UsageError, match="2 ranks on a host with 1 GPUs"):
        TensorFlowBackend(CONFIG, Topology(0, 2, 0, 2, addresses))


def test_a_gpu_rank_takes_the_gpu_of_its_local_rank_and_sums_through_nccl(monkeypatch):
    monkeypatch.setattr(tf.config.experimental, "list_physical_devices", lambda kind: ["GPU:0", "GPU:1"])
    addresses = ("127.0.0.1:1", "127.0.0.1:2")
    backend = TensorFlowBackend(CONFIG, Topology(1, 2, 1, 2, addresses))
    config = backend._session_config()
    assert config.gpu_options.visible_device_list == "1"
    assert config.experimental.collective_nccl
    with tf.Graph().as_default() as graph, backend.placement():
        backend.all_reduce_sum([tf.zeros([2]), tf.zeros([2], tf.int32)])
        sums = {op.get_attr("T"): op for op in graph.get_operations() if op.type == "CollectiveReduce"}
    assert sums[tf.float32].device == "/job:worker/task:1/device:GPU:0"
    assert sums[tf.float32].get_attr("communication_hint") == b"nccl"
    assert sums[tf.int32].device == "/job:worker/task:1/device:CPU:0"
    assert sums[tf.float32].get_attr("group_key") != sums[tf.int32].get_attr("group_key")


def test_the_whole_graph_of_a_rank_is_placed_on_its_own_cpu():
    backend = TensorFlowBackend(CONFIG, Topology(1, 2, 1, 2, ("127.0.0.1:1", "127.0.0.1:2")))
    with tf.Graph().as_default() as graph, backend.placement():
        backend.all_reduce_mean([tf.zeros([2])])
        devices = {op.device for op in graph.get_operations()}
    assert devices == {"/job:worker/task:1/device:CPU:0"}
    assert list(backend._session_config().device_filters) == ["/job:worker/task:1"]


def test_gradients_and_losses_of_a_step_share_one_exchange():
    backend = TensorFlowBackend(CONFIG, Topology(0, 2, 0, 2, ("127.0.0.1:1", "127.0.0.1:2")))
    with tf.Graph().as_default() as graph, backend.placement():
        weights = [tf.compat.v1.get_variable(f"w{i}", [i + 1], use_resource=True) for i in range(3)]
        steps.build_step(
            backend,
            tf.compat.v1.train.MomentumOptimizer(0.5, 0.9),
            steps.StepParts(
                losses={name: tf.add_n(list(map(tf.nn.l2_loss, weights))) for name in ("loss", "total_loss")},
                minimize="total_loss",
                variables=weights,
                updates=[],
                metrics={},
            ),
            tf.compat.v1.train.get_or_create_global_step(),
        )
        (exchange,) = [op for op in graph.get_operations() if op.type == "CollectiveReduce"]
    asked_to_stop = 1
    assert exchange.inputs[0].shape == [1 + 2 + 3 + 2 + asked_to_stop]


def test_a_type_that_ranks_cannot_sum_is_named():
    backend = TensorFlowBackend(CONFIG, Topology(0, 2, 0, 2, ("127.0.0.1:1", "127.0.0.1:2")))
    with tf.Graph().as_default(), backend.placement(), pytest.raises(ValueError, match="total:0 is int64"):
        backend.all_reduce_sum([tf.zeros([], tf.int64, name="total")])


def test_a_shape_that_varies_is_named():
    backend = TensorFlowBackend(CONFIG, Topology(0, 2, 0, 2, ("127.0.0.1:1", "127.0.0.1:2")))
    with tf.Graph().as_default(), backend.placement():
        varying = tf.compat.v1.placeholder(tf.float32, [None], name="varying")
        with pytest.raises(ValueError, match="varying:0 has shape"):
            backend.all_reduce_sum([varying])


def test_a_rank_that_never_comes_is_named():
    with pytest.raises(RunError, match="rank 0 does not answer at 127.0.0.1:1 after 0 s"):
        backend_module._await_servers(["127.0.0.1:1"], 0)


def test_a_port_in_use_is_named_without_a_traceback():
    with socket.socket() as busy:
        busy.bind(("", 0))
        busy.listen(1)
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        ranks = TensorFlowBackend(CONFIG, Topology(0, 2, 0, 2, (address, "127.0.0.1:1")))
        with pytest.raises(RunError, match=f"cannot listen at {address}"), ranks.session(tf.Graph()):
            pass


def test_a_rank_that_does_not_answer_is_named_while_it_is_waited_for(capsys, monkeypatch):
    monkeypatch.setattr(backend_module, "_FIRST_NEWS_SECONDS", 0.0)
    for address in ("127.0.0.1:1", "nohost.invalid:2"):
        with pytest.raises(RunError, match=f"rank 0 does not answer at {address}"):
            backend_module._await_servers([address], 0.3)
        assert f"waiting for rank 0 at {address}" in capsys.readouterr().err


def test_ranks_on_one_host_are_heard_by_no_other(monkeypatch):
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    with socket.socket() as listening:
        listening.bind(("", 0))
        listening.listen(1)
        port = listening.getsockname()[1]

        def device():
            return listening.getsockopt(socket.SOL_SOCKET, local.SO_BINDTODEVICE, 16).rstrip(b"\0")

        local.hide([f"10.0.0.1:{port}", "10.0.0.2:1"], 0)
        assert device() == b""
        local.hide(["127.0.0.1:1", f"127.0.0.1:{port}"], 1)
        if device() == b"":
            pytest.skip("this kernel lets only root bind a socket to a device")
        assert device() == b"lo"
    assert os.environ.pop("NCCL_SOCKET_IFNAME") == "lo"


def test_no_proxy_is_asked_for_the_way_to_other_ranks(monkeypatch):
    monkeypatch.setenv("no_proxy", "intranet")
    local.keep_from_proxy(["127.0.0.1:1", "127.0.0.1:2"])
    assert os.environ["no_proxy"] == "intranet,127.0.0.1"
