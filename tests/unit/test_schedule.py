import math

import pytest

from densenet_keras import schedule
from densenet_keras.schedule import Progress, StepLogs
from densenet_keras.settings.config import Config


@pytest.mark.parametrize("longest", [1, 3, 7, 1000])
@pytest.mark.parametrize("intervals", [[], [5], [5, 7], [4, 6, 9], [1]])
@pytest.mark.parametrize(("first", "total"), [(0, 100), (13, 100), (99, 100), (100, 100), (0, 1)])
def test_chunks_cover_every_step_once_and_end_at_every_boundary(first, total, longest, intervals):
    pieces = list(schedule.chunks(first, total, longest, intervals))
    assert [step for start, end in pieces for step in range(start, end)] == list(range(first, total))
    assert all(0 < end - start <= longest for start, end in pieces)
    ends = {end for _, end in pieces}
    boundaries = {step for step in range(first + 1, total) if any(step % i == 0 for i in intervals)}
    assert boundaries <= ends
    assert first >= total or total in ends


def test_no_chunk_is_shorter_than_boundaries_demand():
    assert list(schedule.chunks(0, 10, 4, [10])) == [(0, 4), (4, 8), (8, 10)]


def make(train_images=1000, eval_images=100, **settings):
    return schedule.plan(Config().replace(**settings), train_images, eval_images)


def test_sizes_of_the_8_rank_imagenet_run():
    plan = make(1281167, 50000, batch_size=32, rank_size=8, max_epochs=150, display_every=10)
    assert plan.global_batch == 256
    assert plan.steps_per_epoch == 5004
    assert plan.total_steps == 750600
    assert plan.eval_interval_steps == 5 * 5004
    assert plan.epoch(150120) == 30.0


def test_epochs_go_before_steps():
    assert make(max_train_steps=7).total_steps == 7
    assert make(max_train_steps=7, max_epochs=2, batch_size=10).total_steps == 200


def test_no_evaluation_but_in_train_and_evaluate():
    assert make(mode="train").eval_interval_steps == 0
    assert make(mode="train_and_evaluate").eval_interval_steps > 0


def test_fewer_images_than_a_batch_are_one_step_an_epoch():
    assert make(train_images=3, batch_size=32).steps_per_epoch == 1


def test_plan_chunks_end_at_log_save_evaluation_and_epoch():
    plan = make(
        350,
        batch_size=10,
        max_epochs=3,
        epochs_between_evals=2,
        save_checkpoints_steps=33,
        iterations_per_loop=8,
    )
    ends = {end for _, end in plan.chunks(0)}
    assert {33, 66, 99, 35, 70, 105} <= ends
    assert all(plan.logs_at(end) for end in ends), "a loop of 8 cannot be cut every step: it logs at its end"


def test_a_log_interval_longer_than_a_loop_cuts_loops_and_a_shorter_one_does_not():
    plan = make(1000, batch_size=10, max_epochs=1, iterations_per_loop=4, display_every=10)
    ends = [end for _, end in plan.chunks(0)]
    assert {10, 20, 30} <= set(ends)
    assert [step for step in ends if plan.logs_at(step)] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    plan = make(1000, batch_size=10, max_epochs=1, iterations_per_loop=25, display_every=10)
    assert [end for _, end in plan.chunks(0)] == [25, 50, 75, 100]


@pytest.mark.parametrize(
    ("images", "settings", "length"),
    [
        (1281167, {"rank_size": 8, "max_epochs": 150}, 834),
        (1281167, {"rank_size": 16, "max_epochs": 150}, 834),
        (1281167, {"batch_size": 256, "max_epochs": 150}, 139),  # 834 of these would take minutes
        (1281167, {"rank_size": 8}, 15),  # 150 steps: lines to see, and a stop that does not wait for the end
        (1281167, {"rank_size": 4, "max_epochs": 150}, 834),  # 10,009 steps have no divisor: 12 and one more
        (1281167, {"rank_size": 8, "max_epochs": 150, "save_checkpoints_steps": 2502}, 834),
        (1281167, {"rank_size": 8, "max_epochs": 150, "iterations_per_loop": 7}, 7),  # as it is given
        (1408, {"max_epochs": 30}, 44),
        (1408, {"max_epochs": 30, "display_every": 11}, 44),
        (1408, {"max_epochs": 30, "display_every": 66}, 22),
        (3, {"max_train_steps": 20}, 1),
    ],
)
def test_a_loop_that_is_left_open_fits_between_all_intervals(images, settings, length):
    plan = make(images, **settings)
    assert plan.iterations_per_loop == length
    assert plan.save_interval_steps == settings.get("save_checkpoints_steps", plan.steps_per_epoch)


def test_a_plan_with_chosen_loops_cuts_at_no_other_place():
    lengths = {end - start for start, end in make(1408, max_epochs=30, save_checkpoints_steps=22).chunks(0)}
    assert lengths == {22}


def test_learning_rate_is_a_pure_function_of_the_step():
    def rate(step, **settings):
        return schedule.learning_rate(step, base=0.1, T_max=150, steps_per_epoch=5004, **settings)

    assert rate(0) == 0.1
    assert f"{rate(150119):.5f}" == "0.09106"
    assert rate(150 * 5004) == rate(10**9) == 0.0
    assert rate(0, warmup_epochs=1.0) == 0.1 / 5004
    assert rate(5003, warmup_epochs=1.0) == 0.1
    assert rate(5004, warmup_epochs=1.0) == rate(5004)


def test_step_logs_are_a_dictionary_whose_missing_entries_are_nan():
    logs = StepLogs({"loss": 2.0}, Progress(3, 0.5, 1, 1, 0.1, 0.0))
    assert logs == {"loss": 2.0}
    assert math.isnan(logs["val_top1"])
    assert logs.get("val_top1") is None
    assert "val_top1" not in logs
    assert logs.progress.step == 3
