"""Constants of which a graph has one node."""

import numpy as np
import pytest
import tensorflow as tf

from densenet_keras.network.constants import integer, integers, number


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as fresh:
        yield fresh


@pytest.mark.parametrize(
    ("make", "value", "dtype"),
    [
        (number, 1.0 / 3.0, np.float32),
        (number, -2.5e-30, np.float32),
        (number, 1e30, np.float32),
        (integer, -1, np.int32),
        (integers, [-1, 7], np.int32),
        (integers, [], np.int32),
    ],
)
def test_a_value_has_one_node_however_often_and_wherever_it_is_used(graph, make, value, dtype):
    first = make(value)
    before = len(graph.get_operations())
    with tf.name_scope("elsewhere"), tf.control_dependencies([tf.no_op()]):
        again = make(value)
    assert again is first
    assert len(graph.get_operations()) == before + 1  # the no_op
    with tf.compat.v1.Session() as session:
        found = session.run(first)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.asarray(value, dtype))


def test_values_that_differ_have_nodes_of_their_own():
    numbers = [number(1.0), number(-1.0), number(1.5)]
    nodes = [*numbers, integer(1), integers([1]), integers([1, 1]), integers([11])]
    assert len({node.name for node in nodes}) == len(nodes)


def test_a_graph_has_its_own():
    outer = number(2.0)
    with tf.Graph().as_default() as other:
        assert number(2.0).graph is other is not outer.graph


def test_a_constant_made_in_a_branch_or_a_loop_serves_outside_of_it():
    chosen = tf.cond(tf.constant(True), lambda: number(3.0) + 0.0, lambda: number(4.0) + 0.0)
    looped = tf.while_loop(lambda x: x < number(9.0), lambda x: x * number(5.0), [tf.constant(1.0)])
    after = number(3.0) + number(5.0)
    with tf.compat.v1.Session() as session:
        assert session.run([chosen, looped, after]) == [3.0, 25.0, 8.0]


def test_a_constant_waits_for_nothing(graph):
    with tf.control_dependencies([tf.no_op()]):
        assert number(6.0).op.control_inputs == []
