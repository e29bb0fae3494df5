"""The NPU path: what reaches the device, in which order, and what happens when float16 overflows."""

import functools
import json

import numpy as np
import pytest

from densenet_keras.backends.ascend import session as npu_session
from densenet_keras.errors import RunError
from densenet_keras.topology import Topology
from tests.contract.subjects import _ascend_rank
from tests.support.ranks import run_ranks

STEPS = 6


def run(function, size, **arguments):
    return run_ranks(
        f"tests.contract.ascend_scenarios:{function}",
        size,
        timeout_seconds=150,
        arguments=arguments,
        environment=_ascend_rank,
    )


@functools.lru_cache(maxsize=None)
def trained(size, iterations_per_loop=4, loss_scale="none", npu="910", **arguments):
    settings = {"iterations_per_loop": iterations_per_loop, "loss_scale": loss_scale, "npu": npu}
    settings["max_skipped_steps"] = arguments.pop("max_skipped_steps", 100)
    return run("train", size, settings=settings, **arguments)


def history(rank):
    return json.loads(str(rank["history"]))


def loops(rank):
    """Iterations of each session.run of the training step."""
    return [
        count for kind, *rest in history(rank) if kind == "run"
        for count, names in [rest]
        if "IterationOp" in names or "train_step" in names
    ]  # fmt: skip


def same(ranks, prefix):
    names = [name for name in ranks[0] if name.startswith(prefix)]
    assert names
    return all(np.array_equal(rank[name], ranks[0][name]) for rank in ranks for name in names)


@pytest.mark.parametrize("size", [1, 2])
def test_the_device_starts_first_stops_last_and_the_session_is_closed(size):
    for rank in trained(size):
        kinds = [event[0] for event in history(rank)]
        # Comparing graphs over ranks takes a session of the stand-in's own.
        mine = [kind for kind, *rest in history(rank) if kind != "session" or rest[0] is not None]
        assert mine[:2] == ["session", "NPUInit"]
        assert mine[-2:] == ["NPUShutdown", "close"]
        assert kinds.count("NPUInit") == kinds.count("NPUShutdown") == 1


def test_a_failure_in_the_session_stops_the_device_too():
    (rank,) = run("train", 1, settings={"iterations_per_loop": 2}, stop_after=2)
    assert str(rank["error"]).startswith("_Stopped")
    assert [event[0] for event in history(rank)][-2:] == ["NPUShutdown", "close"]


def test_the_session_carries_every_option_in_its_field():
    (rank,) = trained(1)
    assert history(rank)[0] == ["session", {
        "use_off_line": True,
        "enable_data_pre_proc": True,
        "mix_compile_mode": False,
        "iterations_per_loop": 2,
        "graph_run_mode": 1,
        "precision_mode": "allow_mix_precision",
        "hcom_parallel": True,
        "op_compiler_cache_mode": "enable",
        "debug_dir": str(rank["run_folder"]) + "/rank_logs/npu_0",
    }]  # fmt: skip


def test_each_rank_compiles_in_a_folder_of_its_own():
    ranks = trained(2)
    for number, rank in enumerate(ranks):
        files = json.loads(str(rank["compiled"]))
        assert files
        assert all(path.startswith(f"model_1p/rank_logs/npu_{number}/kernel_meta/") for path in files)


def test_the_session_switches_off_what_the_device_cannot_run():
    from tensorflow.core.protobuf.config_pb2 import OptimizerOptions
    from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

    config = npu_session.config_proto({"use_off_line": ("b", True)})
    options = config.graph_options
    assert options.rewrite_options.remapping == RewriterConfig.OFF
    assert options.rewrite_options.memory_optimization == RewriterConfig.NO_MEM_OPT  # OFF is another mode
    assert options.optimizer_options.global_jit_level == OptimizerOptions.OFF
    assert config.allow_soft_placement
    assert [carrier.name for carrier in options.rewrite_options.custom_optimizers] == ["NpuOptimizer"]


@pytest.mark.parametrize(
    ("size", "iterations_per_loop", "expected"),
    [
        (1, 1, [1] * 6), (1, 2, [2] * 3), (1, 4, [2] * 3), (1, 5, [5, 1]), (1, 6, [6]),
        (2, 4, [2] * 3), (2, 5, [5, 1]),
    ],
)  # fmt: skip
def test_chunks_are_loops_of_one_length_and_single_steps(size, iterations_per_loop, expected):
    for rank in trained(size, iterations_per_loop):
        assert loops(rank) == expected
        assert rank[f"global_step_{STEPS}"] == STEPS
        assert any(f"loop length {max(expected)}" in note for note in json.loads(str(rank["notes"])))


def test_loops_and_single_steps_give_the_same_weights():
    (looped,), (single,) = trained(1, 5), trained(1, 1)
    for name in looped:
        if name.startswith(("weight", "moving")):
            np.testing.assert_array_equal(looped[name], single[name])


@pytest.mark.parametrize("loss_scale", ["1", "dynamic"])
@pytest.mark.parametrize("size", [1, 2])
def test_an_overflow_on_one_rank_is_skipped_on_all_and_counted(size, loss_scale):
    calm = trained(size, 4, loss_scale)
    ranks = trained(size, 4, loss_scale, overflow_on_rank=size - 1, overflow_at="3,4")
    for rank in ranks:
        assert str(rank["error"]) == ""
        assert json.loads(str(rank["log_line"]))["skipped_steps"] == 2
        # A skipped step is a step: the schedule and the data go on.
        assert [rank[f"global_step_{end}"] for end in (4, 6)] == [4, 6]
        assert rank["learning_rate_6"] == calm[0]["learning_rate_6"]
        assert rank["update_count"] == STEPS
    assert same(ranks, "weight")
    assert not np.array_equal(ranks[0]["weight00"], calm[0]["weight00"])
    assert [json.loads(str(rank["log_line"]))["skipped_steps"] for rank in calm] == [0] * size


def test_where_an_overflow_gives_infinities_the_gradients_tell_all_ranks():
    """The 910B: its float status stays silent, and one rank's Inf is in everybody's mean."""
    arguments = {"overflow_on_rank": 1, "overflow_at": "3,4"}
    ranks = trained(2, 4, "1", npu="910b", **arguments)
    for rank in ranks:
        assert str(rank["error"]) == ""
        assert json.loads(str(rank["log_line"]))["skipped_steps"] == 2
    assert same(ranks, "weight")
    # The same steps are left out as on a 910, so the weights are the same.
    on_910 = trained(2, 4, "1", **arguments)
    for name in (name for name in ranks[0] if name.startswith("weight")):
        np.testing.assert_allclose(ranks[0][name], on_910[0][name], rtol=1e-6)


def test_a_dynamic_scale_halves_after_two_overflows():
    (rank,) = trained(1, 4, "dynamic", overflow_on_rank=0, overflow_at="3,4")
    assert json.loads(str(rank["log_line"]))["loss_scale"] == 2**15
    assert rank["optional"].tolist() == ["bad_steps", "good_steps", "loss_scale"]


def test_loss_scaling_changes_neither_weights_nor_variables_without_overflow():
    (plain,), (scaled,), (dynamic,) = trained(1), trained(1, 4, "1"), trained(1, 4, "dynamic")
    assert plain["optional"].tolist() == scaled["optional"].tolist() == []
    for name in plain:
        if name.startswith(("weight", "moving", "loss", "global_step")):
            np.testing.assert_array_equal(plain[name], scaled[name])
            np.testing.assert_allclose(plain[name], dynamic[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2])
def test_too_many_skipped_steps_in_a_row_end_the_run_on_all_ranks(size):
    arguments = {"overflow_on_rank": 0, "max_skipped_steps": 2}
    for rank in trained(size, 6, "1", overflow_at="2,3,4", **arguments):
        assert "3 steps in a row" in str(rank["error"])
        assert "--max_skipped_steps 2" in str(rank["error"])


def test_skipped_steps_that_are_not_in_a_row_do_not_end_it():
    (rank,) = trained(1, 6, "1", overflow_on_rank=0, overflow_at="1,2,4,5", max_skipped_steps=2)
    assert str(rank["error"]) == ""
    assert json.loads(str(rank["log_line"]))["skipped_steps"] == 4


def test_the_gradient_split_is_handed_over_after_the_start():
    for rank in run("train", 2, settings={"iterations_per_loop": 6, "gradient_split": "idx:1,4"}):
        assert json.loads(str(rank["split"])) == ["idx", [1, 4]]
        kinds = [event[0] for event in history(rank)]
        assert kinds.index("NPUInit") < kinds.index("split") < kinds.index("run")


def test_keras_reads_weights_and_nothing_else():
    for rank in run("callbacks_use", 2):
        assert rank["same"]
        assert rank["runs"] == 1  # asking which variables are initialised would be another graph
        assert np.any(rank["kernel"])


def test_only_the_session_of_the_backend_runs_on_the_device():
    """The newer adapter takes all sessions of a process, once it is imported."""
    (rank,) = run("other_sessions", 1)
    assert rank["shape"].tolist() == [12, 10, 3]
    assert rank["on_the_device"].tolist() == [False] * (len(rank["on_the_device"]) - 1) + [True]
    assert len(rank["on_the_device"]) > 2


def test_the_name_of_a_pod_does_not_take_the_place_of_a_rank():
    for rank in run("callbacks_use", 1):
        assert str(rank["pod"]) == ""


def test_the_stand_in_refuses_what_the_device_refuses():
    for rank in run("refusals", 2):
        words = {
            "manage_before_start": "ValueError: get rank id error",
            "tensor_as_step": "ValueError",
            "no_iterations": "must be positive",
            "int64_sum": "int64",
            "variable_sum": "variable",
            "int64_broadcast": "int64",
            "small_scale": "at least 1",
            "split_before_start": "not initialised",
            "no_job": "'NoneType' object has no attribute '_rank_size'",
            "different_graphs": "EI0005",
            "one_shot_iterator": "OneShotIterator",
            "wrong_field": "must >= 1",
        }
        assert {name: text in str(rank[name]) for name, text in words.items()} == dict.fromkeys(words, True)


def test_the_stand_in_loops_only_when_all_is_right():
    (rank,) = run("traps", 1)
    made = {name: value.tolist() for name, value in rank.items()}
    assert made == {
        "right": [1, 3],
        "one": [1, 1],
        "scoped": [1, 1],
        "reset_after_loading": [1, 1],
        "option_of_one": [1, 1],
        "step_itself": [1, 1],
        "initialised_together": [0, 3],  # the variable's initial value, 1, never reached the device
    }


RANK_1 = {"RANK_ID": "1", "RANK_SIZE": "2", "RANK_TABLE_FILE": "/table.json", "JOB_ID": "job"}


@pytest.mark.parametrize("missing", sorted(RANK_1))
@pytest.mark.parametrize("empty", [True, False])
def test_an_incomplete_environment_is_named_before_anything_starts(missing, empty):
    environ = {name: value for name, value in RANK_1.items() if name != missing or empty}
    if empty:
        environ[missing] = ""
    with pytest.raises(RunError, match=missing):
        npu_session.check_environment(environ, Topology(1, 2))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"RANK_ID": "0"}, "RANK_ID"),
        ({"RANK_SIZE": "8"}, "RANK_SIZE"),
        ({"CM_WORKER_SIZE": "2"}, "CM_WORKER_SIZE"),
    ],
)
def test_a_contradicting_environment_is_named(change, word):
    npu_session.check_environment(RANK_1, Topology(1, 2))
    with pytest.raises(RunError, match=word):
        npu_session.check_environment({**RANK_1, **change}, Topology(1, 2))


def test_what_the_adapter_would_misread_is_unset():
    """The older one reads an empty table for one rank; the newer refuses an empty CM_WORKER_SIZE."""
    empty = dict.fromkeys(("RANK_TABLE_FILE", "CM_WORKER_SIZE", "ASCEND_OPP_PATH"), "")
    environ = {**empty, "POD_NAME": "worker-0", "RANK_SIZE": "1"}
    npu_session.check_environment(environ, Topology())
    npu_session.drop_misread(environ)
    assert environ == {"RANK_SIZE": "1"}
    kept = dict(RANK_1)
    npu_session.drop_misread(kept)
    assert kept == RANK_1


def test_one_rank_needs_nothing_of_the_environment():
    npu_session.check_environment({}, Topology())
    with pytest.raises(RunError, match="RANK_SIZE"):
        npu_session.check_environment({"RANK_SIZE": "8"}, Topology())
