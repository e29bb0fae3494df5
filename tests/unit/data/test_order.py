"""The order of records is a permutation of each pass, the same for any number of ranks."""

import numpy as np
import pytest

from densenet_keras.data.order import (
    NO_RECORD,
    TrainOrder,
    eval_batches_per_rank,
    eval_records,
    substitute,
)
from densenet_keras.errors import UsageError


def global_stream(seed, records, batch_size, size, steps):
    """(records, draws) of all ranks, step after step."""
    orders = [TrainOrder(seed, records, batch_size, rank, size) for rank in range(size)]
    batches = [order.batch(step) for step in range(steps) for order in orders]
    return (
        np.concatenate([batch.records for batch in batches]),
        np.concatenate([batch.draws for batch in batches]),
    )


@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_pass_is_a_permutation(size):
    records, _ = global_stream(0, 37, 3, size, steps=100 // size)
    for first in range(0, len(records) - 37, 37):
        assert sorted(records[first : first + 37]) == list(range(37))
    assert not np.array_equal(records[:37], records[37:74])


def test_any_number_of_ranks_gives_the_same_global_stream():
    streams = [global_stream(5, 37, 24 // size, size, steps=8) for size in (1, 2, 4, 8)]
    for records, draws in streams[1:]:
        np.testing.assert_array_equal(records, streams[0][0])
        np.testing.assert_array_equal(draws, streams[0][1])


def test_a_step_does_not_depend_on_the_steps_before():
    order = TrainOrder(3, 37, 8, 0, 1)
    for step in range(50):
        order.batch(step)
    for step in (1000000007, 20, 3, 49):
        fresh = TrainOrder(3, 37, 8, 0, 1).batch(step)
        np.testing.assert_array_equal(order.batch(step).records, fresh.records)
        np.testing.assert_array_equal(order.batch(step).draws, fresh.draws)


def test_no_two_positions_share_a_draw():
    _, draws = global_stream(1, 37, 10, 1, steps=60)
    _, other_seed = global_stream(2, 37, 10, 1, steps=60)
    pairs = {tuple(pair) for pair in np.concatenate([draws, other_seed])}
    assert len(pairs) == 1200


def test_seeds_give_different_orders():
    assert not np.array_equal(global_stream(0, 37, 37, 1, 1)[0], global_stream(1, 37, 37, 1, 1)[0])


def test_order_is_the_documented_permutation():
    records, _ = global_stream(9, 10, 5, 1, steps=4)
    np.testing.assert_array_equal(records[10:], np.random.RandomState([9, 1]).permutation(10))


def test_a_batch_may_span_many_passes():
    records, draws = global_stream(0, 3, 20, 1, steps=2)
    for first in range(0, 36, 3):
        assert sorted(records[first : first + 3]) == [0, 1, 2]
    assert len({tuple(pair) for pair in draws}) == 40


@pytest.mark.parametrize("seed", [-1, 1 << 31])
def test_seed_outside_its_range_is_refused(seed):
    with pytest.raises(UsageError, match=f"--seed {seed}"):
        TrainOrder(seed, 10, 2, 0, 1)


@pytest.mark.parametrize(("count", "batch_size", "size"), [(1, 4, 3), (10, 5, 2), (11, 2, 3), (24, 4, 2)])
def test_evaluation_takes_each_record_once(count, batch_size, size):
    batches = eval_batches_per_rank(count, batch_size, size)
    taken = np.concatenate(
        [eval_records(step, count, batch_size, rank, size) for rank in range(size) for step in range(batches)]
    )
    assert len(taken) == batches * batch_size * size
    assert sorted(taken[taken != NO_RECORD]) == list(range(count))


def test_what_stands_in_for_a_bad_record_stays_what_it_was():
    """A later version must continue a run on the images that it would have seen."""
    places = [(4 << 32, 0, 1), (4 << 32, 0, 2), (4 << 32, 1, 1), ((4 << 32) + 1, 0, 1)]
    taken = [substitute(np.array(draw), attempt, 1281167) for *draw, attempt in places]
    assert taken == [309391, 986767, 544575, 1114838]


def test_substitutes_are_spread_over_all_records():
    taken = [substitute(np.array([7 << 32, place]), 1, 10) for place in range(2000)]
    counts = np.bincount(taken, minlength=10)
    assert counts.min() > 140
    assert counts.max() < 260
