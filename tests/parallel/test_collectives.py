"""Two CPU ranks in processes of their own: where work lands, and how ranks come and go."""

import os
import pathlib
import time

import numpy as np
import pytest

from tests.support.ranks import RanksFailed, run_ranks


def run(function, **options):
    return run_ranks(f"{__name__}:{function.__name__}", size=2, timeout_seconds=60, **options)


def backend_of(topology):
    from densenet_keras.backends.tensorflow.backend import TensorFlowBackend
    from densenet_keras.settings.config import Config

    return TensorFlowBackend(
        Config().replace(rank_size=2, intra_op_threads=1, data_threads=1, first_step_timeout_seconds=50),
        topology,
    )


def wait_until(condition):
    """Polls for what another process does; the timeout of `run_ranks` bounds it."""
    while not condition():
        time.sleep(0.01)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def input_in_own_process(topology):
    import tensorflow as tf

    backend = backend_of(topology)
    with tf.Graph().as_default() as graph, backend.placement():
        dataset = tf.data.Dataset.range(3).map(
            lambda _: tf.numpy_function(lambda: np.int64(os.getpid()), [], tf.int64)
        )
        iterator = tf.compat.v1.data.make_initializable_iterator(dataset)
        process = backend.measure_get_next(iterator)
        with backend.session(graph) as session:
            session.run(iterator.initializer)
            return {"input": session.run(process), "own": os.getpid()}


def test_each_rank_reads_its_input_in_its_own_process():
    for rank in run(input_in_own_process):
        assert rank["input"] == rank["own"]


def come_late_and_leave_late(topology):
    """Rank 1 comes first and leaves last; rank 0 is gone by then."""
    import tensorflow as tf

    backend = backend_of(topology)
    arrived = pathlib.Path("rank_1_arrived")
    with tf.Graph().as_default() as graph, backend.placement():
        value = tf.random.stateless_normal([1000], [1, topology.rank])
        (mean,) = backend.all_reduce_mean([value])
        if topology.rank == 0:
            pathlib.Path("rank_0").write_text(str(os.getpid()), encoding="utf-8")
            wait_until(arrived.exists)
        else:
            arrived.touch()
        with backend.session(graph) as session:
            for _ in range(20):
                result = session.run(mean)
            if topology.rank == 1:
                peer = int(pathlib.Path("rank_0").read_text(encoding="utf-8"))
                wait_until(lambda: not is_running(peer))
    return {"mean": result}


def test_ranks_may_come_and_leave_at_different_times():
    first, second = run(come_late_and_leave_late)
    np.testing.assert_array_equal(first["mean"], second["mean"])


def two_backends(topology):
    """Backends made one after the other, with collectives of other shapes, as a second run makes them."""
    import tensorflow as tf

    totals = []
    for elements in (3, 5):
        backend = backend_of(topology)
        with tf.Graph().as_default() as graph, backend.placement():
            (total,) = backend.all_reduce_sum([tf.fill([elements], topology.rank + 1)])
            with backend.session(graph) as session:
                totals.append(session.run(total))
    return {"first": totals[0], "second": totals[1]}


def test_a_process_can_run_one_graph_after_another():
    for rank in run(two_backends):
        np.testing.assert_array_equal(rank["first"], np.full(3, 3))
        np.testing.assert_array_equal(rank["second"], np.full(5, 3))


def data_of_rank_1_ends(topology):
    """Rank 0 then waits for the sum with rank 1, which no time-out of TensorFlow's would end."""
    import tensorflow as tf

    backend = backend_of(topology)
    with tf.Graph().as_default() as graph, backend.placement():
        dataset = tf.data.Dataset.range(3 if topology.rank == 1 else 100)
        iterator = tf.compat.v1.data.make_initializable_iterator(dataset)
        (total,) = backend.all_reduce_sum([tf.cast(backend.measure_get_next(iterator), tf.float32)])
        with backend.session(graph) as session:
            session.run(iterator.initializer)
            for _ in range(5):
                session.run(total)


def test_a_rank_that_fails_in_a_step_leaves_while_its_peers_wait():
    with pytest.raises(RanksFailed, match="End of sequence") as failure:
        run(data_of_rank_1_ends)
    assert failure.value.rank == 1


def fail_on_rank_1(topology):
    if topology.rank == 1:
        raise RuntimeError("on purpose")
    wait_until(lambda: False)


def test_a_failing_rank_is_named_and_ends_the_others():
    with pytest.raises(RanksFailed, match="on purpose") as failure:
        run(fail_on_rank_1)
    assert failure.value.rank == 1
