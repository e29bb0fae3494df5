"""What the trainer relies on, the same for every backend and any number of ranks."""

import numpy as np
import pytest

from tests.contract.scenarios import BASE_RATE, STEPS, reduction_inputs

CHUNKS = (1, 2, 4, 6)
HOST_OPS = {"Placeholder", "PlaceholderWithDefault", "PyFunc", "EagerPyFunc", "PyFuncStateless", "Print"}


def training(outcome, size, iterations_per_loop=6):
    return outcome(f"training_{iterations_per_loop}", size)


def named(rank, prefix):
    values = [value for name, value in sorted(rank.items()) if name.startswith(prefix)]
    assert values, f"no {prefix} in {sorted(rank)}"
    return values


def assert_bits_equal(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_sums_have_the_values_types_and_order_of_the_inputs(outcome, size):
    inputs = [reduction_inputs(rank) for rank in range(size)]
    for rank in outcome("reductions", size):
        for i, values in enumerate(zip(*inputs)):
            total = rank[f"first_sum{i}"]
            assert total.dtype == values[0].dtype
            assert total.shape == values[0].shape
            if total.dtype == np.int32:
                np.testing.assert_array_equal(total, np.sum(values, axis=0))
            else:
                np.testing.assert_allclose(total, np.sum(values, axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_means_divide_the_sums_by_the_number_of_ranks(outcome, size):
    for rank in outcome("reductions", size):
        for mean, total in enumerate([0, 2, 4]):
            value = rank[f"first_mean{mean}"]
            np.testing.assert_allclose(value, rank[f"first_sum{total}"] / np.float32(size), rtol=1e-6)


@pytest.mark.parametrize("size", [2, 8])
def test_reductions_are_bit_equal_on_all_ranks_and_from_run_to_run(outcome, size):
    ranks = outcome("reductions", size)
    for rank in ranks:
        assert_bits_equal(named(rank, "first"), named(ranks[0], "first"))
        assert_bits_equal(named(rank, "first"), named(rank, "second"))


def test_one_rank_reduces_to_what_it_put_in(outcome):
    (rank,) = outcome("reductions", 1)
    assert_bits_equal([rank[f"first_sum{i}"] for i in range(5)], reduction_inputs(0))


@pytest.mark.parametrize("size", [1, 2])
def test_broadcast_spreads_floats_of_rank_0_and_leaves_integers_alone(outcome, size):
    for number, rank in enumerate(outcome("broadcast", size)):
        np.testing.assert_array_equal(rank["kernel"], np.full([3, 2], 1.5, np.float32))
        np.testing.assert_array_equal(rank["moving_mean"], np.full([4], -0.5, np.float32))
        assert rank["counter"] == number + 7
        assert rank["global_step"] == number + 2**40


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_global_step_advances_by_exactly_the_steps_of_each_chunk(outcome, size, chunk):
    for rank in training(outcome, size, chunk):
        ends = sorted(int(name.split("_")[-1]) for name in rank if name.startswith("global_step_"))
        assert ends == [*range(chunk, STEPS, chunk), STEPS]
        assert [rank[f"global_step_{end}"] for end in ends] == ends


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_metrics_are_those_of_the_last_step_before_its_update(outcome, size, chunk):
    every_step = training(outcome, size, 1)[0]
    for rank in training(outcome, size, chunk):
        for end in [*range(chunk, STEPS, chunk), STEPS]:
            assert rank[f"learning_rate_{end}"] == BASE_RATE * end
            assert rank[f"loss_{end}"] == every_step[f"loss_{end}"]
            assert rank[f"total_loss_{end}"] == every_step[f"total_loss_{end}"]


@pytest.mark.parametrize("size", [1, 2])
def test_losses_are_means_over_the_global_batch(outcome, size):
    reference = outcome("first_update", 1)[0]
    for rank in outcome("first_update", size):
        np.testing.assert_allclose(rank["loss_1"], reference["loss_1"], rtol=1e-6)
        np.testing.assert_allclose(rank["total_loss_1"], reference["total_loss_1"], rtol=1e-6)
        assert rank["total_loss_1"] > rank["loss_1"]


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_moving_averages_are_updated_once_a_step(outcome, size, chunk):
    for rank in training(outcome, size, chunk):
        assert rank["update_count"] == STEPS
        for moving in named(rank, "moving"):
            assert not np.all(np.isin(moving, [0.0, 1.0])), "still the initial values"


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("chunk", CHUNKS[1:])
def test_chunking_does_not_change_a_bit_of_the_weights(outcome, size, chunk):
    for rank, reference in zip(training(outcome, size, chunk), training(outcome, size, 1)):
        assert_bits_equal(named(rank, "weight"), named(reference, "weight"))
        assert_bits_equal(named(rank, "moving"), named(reference, "moving"))


def test_two_ranks_of_half_the_batch_make_the_first_update_of_one_rank(outcome):
    (single,) = outcome("first_update", 1)
    for rank in outcome("first_update", 2):
        for value, reference in zip(named(rank, "weight"), named(single, "weight")):
            np.testing.assert_allclose(value, reference, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("size", [2, 8])
def test_ranks_keep_the_same_weights_under_batch_norm(outcome, size):
    ranks = training(outcome, size)
    for rank in ranks[1:]:
        assert_bits_equal(named(rank, "weight"), named(ranks[0], "weight"))
        assert rank[f"loss_{STEPS}"] == ranks[0][f"loss_{STEPS}"]
        own_statistics = zip(named(rank, "moving"), named(ranks[0], "moving"))
        assert any(np.any(a != b) for a, b in own_statistics), "ranks did not see different data"


@pytest.mark.parametrize("size", [1, 2])
def test_the_step_asks_nothing_of_the_host(outcome, size):
    for rank in training(outcome, size):
        assert not HOST_OPS & set(rank["step_op_types"].tolist())


@pytest.mark.parametrize("size", [1, 2])
def test_only_the_first_chunk_is_said_to_compile(outcome, size):
    for rank in training(outcome, size, 2):
        assert [bool(rank[f"compiled_{end}"]) for end in (2, 4, 6)] == [True, False, False]


@pytest.mark.parametrize("size", [1, 2])
def test_data_wait_is_a_duration_or_unknown(outcome, size):
    for rank in training(outcome, size, 2):
        waits = np.array(named(rank, "data_wait"))
        assert np.all(np.isnan(waits) | (waits >= 0.0))


@pytest.mark.parametrize("size", [1, 2])
def test_a_variable_without_gradient_is_refused_by_name(outcome, size):
    for rank in outcome("unused_variable", size):
        assert "left_out" in str(rank["message"])


@pytest.mark.parametrize("size", [1, 2])
def test_an_exception_leaves_the_session_and_the_process(outcome, size):
    assert [rank["stopped_at"] for rank in outcome("leave_by_exception", size)] == [2] * size
