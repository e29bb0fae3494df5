"""Flags of the NPU, checked without a device or an adapter."""

import dataclasses
import json
import os

import pytest

from densenet_keras import schedule
from densenet_keras.backends.ascend import backend, loop_plan, option_keys, stand_ins
from densenet_keras.backends.ascend import flags as npu_flags
from densenet_keras.backends.ascend import options as npu_options
from densenet_keras.errors import UsageError
from densenet_keras.settings.config import EVALUATE, Config
from densenet_keras.topology import Topology


def options(rank=0, length=1, environ=None, **settings):
    return npu_options.session_options(Config().replace(**settings), rank, length, environ)


def refusal(**settings):
    with pytest.raises(UsageError) as caught:
        npu_flags.validate(Config().replace(**settings))
    return str(caught.value)


def test_every_option_of_a_plain_run_has_the_field_that_the_device_reads():
    assert dict(options(length=10)) == {
        "use_off_line": ("b", True),
        "enable_data_pre_proc": ("b", True),
        "mix_compile_mode": ("b", False),
        "iterations_per_loop": ("i", 10),
        "graph_run_mode": ("i", 1),
        "precision_mode": ("s", "allow_mix_precision"),
        "hcom_parallel": ("b", True),
        "op_compiler_cache_mode": ("s", "enable"),
        "debug_dir": ("s", os.path.abspath("model_1p/rank_logs/npu_0")),
    }


def test_python_types_fit_the_fields(tmp_path):
    mixlist = tmp_path / "mixlist.json"
    mixlist.write_text("{}")
    given = options(
        modify_mixlist=str(mixlist),
        profiling=str(tmp_path),
        dump=str(tmp_path),
        graph_memory_max_size="26*1024*1024*1024",
        op_compiler_cache_dir=str(tmp_path / "cache"),
        npu_option=("op_debug_level=1", "lower_functional_ops=true", "fusion_switch_file=" + str(mixlist)),
    )
    kinds = {"b": bool, "i": int, "s": str}
    for key, (field, value) in given.items():
        assert type(value) is kinds[field], key
        if key in option_keys.OPTIONS:
            assert option_keys.OPTIONS[key].field == field


def test_the_compilers_files_go_where_the_user_says(tmp_path):
    assert options(3)["debug_dir"] == ("s", os.path.abspath("model_1p/rank_logs/npu_3"))
    environ = {"ASCEND_WORK_PATH": "/somewhere"}
    assert options(3, environ=environ)["debug_dir"] == ("s", "/somewhere")
    given = options(environ=environ, npu_option=(f"debug_dir={tmp_path}",))
    assert given["debug_dir"] == ("s", str(tmp_path))


def test_a_path_that_the_compiler_cannot_take_is_not_given_to_it_and_noted():
    assert "debug_dir" not in options(log_dir="my runs")
    assert any("--log_dir my runs" in note for note in npu_flags.notes(Config().replace(log_dir="my runs")))
    assert not any("--log_dir" in note for note in npu_flags.notes(Config()))


def test_the_cache_of_operators_is_on_unless_it_is_switched_off(tmp_path):
    assert "op_compiler_cache_dir" not in options()  # the library's own place, which every start finds
    off = options(npu_option=("op_compiler_cache_mode=disable",))
    assert off["op_compiler_cache_mode"] == ("s", "disable")


@pytest.mark.parametrize("settings", [{"command": EVALUATE}, {"mode": "evaluate"}])
def test_evaluation_compiles_for_inference(settings):
    assert options(**settings)["graph_run_mode"] == ("i", 0)


def test_each_rank_dumps_and_profiles_into_its_own_folder(tmp_path):
    settings = {"dump": str(tmp_path / "dump"), "profiling": str(tmp_path / "profile")}
    folders = set()
    for rank in range(3):
        given = options(rank, **settings)
        npu_options.make_folders(given)
        folders.add(given["dump_path"][1])
        folders.add(json.loads(given["profiling_options"][1])["output"])
    assert len(folders) == 6
    assert all((tmp_path / folder).is_dir() for folder in folders)


def test_a_profile_names_both_points_or_the_device_refuses_it(tmp_path):
    given = options(profiling=str(tmp_path))
    profile = json.loads(given["profiling_options"][1])
    assert given["profiling_mode"] == ("b", True)
    assert profile["training_trace"] == "on"
    assert {"fp_point", "bp_point"} <= set(profile)


def test_overflow_debug_dumps_what_overflows(tmp_path):
    given = options(overflow_debug=str(tmp_path))
    assert given["enable_dump_debug"] == ("b", True)
    assert given["dump_debug_mode"] == ("s", "all")
    assert "enable_dump" not in given


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"npu_option": ("enable_small_chanel=1",)}, "enable_small_channel"),
        ({"npu_option": ("hcom_paralel=true",)}, "--hcom_parallel"),
        ({"npu_option": ("hcom_parallel=true",)}, "--hcom_parallel"),
        ({"npu_option": ("use_off_line=false",)}, "host"),
        ({"npu_option": ("iterations_per_loop=3",)}, "--iterations_per_loop"),
        ({"npu_option": ("dynamic_input=true",)}, "static"),
        ({"npu_option": ("op_debug_level=high",)}, "whole number"),
        ({"npu_option": ("lower_functional_ops=1",)}, "true or false"),
        ({"npu_option": ("op_select_implmode=fast",)}, "high_precision"),
        ({"npu_option": ("op_debug_level",)}, "KEY=VALUE"),
        ({"npu_option": ("op_debug_level=1", "op_debug_level=2")}, "twice"),
        ({"npu_option": ("fusion_switch_file=/no/such/file",)}, "does not exist"),
        ({"npu_option": ("dump_layer=conv",)}, "--dump"),
        ({"npu_option": ("frozen_variable=true",)}, "constants"),
        ({"npu_option": ("in_out_pair=[]",)}, "mixed computing"),
        ({"npu_option": ("compile_hybrid_mode=1",)}, "static"),
        ({"npu_option": ("experimental_accelerate_train_mode=fast|step|0.9",)}, "STEP_NOW"),
        ({"npu_option": ("enable_exception_dump=3",)}, "one of 0, 1, 2"),
        ({"npu_option": ("mstune_mode=5", "work_path=w")}, "one of 1, 2, 3, 4"),
        ({"npu_option": ("mstune_mode=2",)}, "work_path"),
        ({"npu_option": ("export_compile_stat=3",)}, "one of 0, 1, 2"),
        ({"npu_option": ("precision_mode_v2=mixed",)}, "mixed_float16"),
        ({"npu_option": ("optypelist_for_implmode=SoftmaxV2",)}, "op_select_implmode"),
        ({"npu_option": ("insert_op_file=/no/such/file",)}, "does not exist"),
        ({"dump": "d", "overflow_debug": "o"}, "exclude"),
        ({"dump_step": "3"}, "--dump DIR"),
        ({"dump": "d", "dump_step": "5-3"}, "5-3"),
        ({"dump": "d", "dump_step": "5-5"}, "5-5"),
        ({"dump": "d", "dump_step": "|".join(["1"] * 101)}, "101"),
        ({"modify_mixlist": "m.json", "precision_mode": "force_fp16"}, "allow_mix_precision"),
        ({"modify_mixlist": "/no/such/file"}, "does not exist"),
        ({"graph_memory_max_size": "lots"}, "lots"),
        ({"graph_memory_max_size": "27*1024*1024*1024"}, "31 GiB"),
        ({"op_compiler_cache_dir": "/dev/null/cache"}, "/dev/null"),
        ({"loss_scale": "0.5"}, "at least 1"),
        ({"loss_scale": "nan"}, "at least 1"),
        ({"gradient_split": "size:50,40"}, "90"),
        ({"gradient_split": "idx:5,3"}, "larger"),
        ({"gradient_split": "idx:" + ",".join(map(str, range(9)))}, "9 segments"),
        ({"gradient_split": "even"}, "idx:"),
    ],
)
def test_mistakes_are_refused_with_the_rule(settings, words):
    assert words in refusal(**settings)


def test_another_precision_option_takes_the_place_of_the_usual_one():
    given = options(npu_option=("precision_mode_v2=mixed_float16",))
    assert given["precision_mode_v2"] == ("s", "mixed_float16")
    assert "precision_mode" not in given
    with pytest.raises(UsageError):
        options(npu_option=("precision_mode_v2=fp16",), precision_mode="force_fp16")


def test_what_is_said_of_precision_holds_for_either_form_of_the_option():
    origin = Config().replace(npu="910", npu_option=("precision_mode_v2=origin",))
    assert npu_flags.notes(origin) == ["convolutions have no float32 on the 910: origin will not compile"]
    mixed = Config().replace(npu="910", npu_option=("precision_mode_v2=mixed_float16",))
    assert npu_flags.notes(mixed) == npu_flags.notes(Config().replace(npu="910"))
    described = backend.AscendBackend(mixed, Topology(), stand_ins.adapter_parts()).describe_device()
    assert "precision mode mixed_float16" in described


def test_mixed_precision_lists_go_with_either_form_of_the_option(tmp_path):
    lists = tmp_path / "lists.json"
    lists.write_text("{}")
    given = options(npu_option=("precision_mode_v2=mixed_float16",), modify_mixlist=str(lists))
    assert given["modify_mixlist"] == ("s", str(lists))
    words = refusal(npu_option=("precision_mode_v2=fp16",), modify_mixlist=str(lists))
    assert "precision_mode_v2=fp16" in words
    assert "mixed_float16" in words


def test_lists_are_advised_only_where_the_adapter_reads_them():
    assert "--modify_mixlist" in option_keys.keep_float32(is_newer=True)
    older = option_keys.keep_float32(is_newer=False)
    assert older.startswith("train with --precision_mode allow_fp32_to_fp16")


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("ac_parallel_enable=1", "s", "1"),
        ("all_tensor_not_empty=true", "b", True),
        ("graph_max_parallel_model_num=2", "i", 2),
        ("auto_multistream_parallel_mode=cv", "s", "cv"),
        ("shape_generalization_mode=FULL", "s", "FULL"),
        ("variable_use_1g_huge_page=2", "i", 2),
    ],
)
def test_keys_that_only_the_newer_adapter_reads_are_handed_over(setting, field, value):
    key = setting.partition("=")[0]
    assert options(npu_option=(setting,))[key] == (field, value)
    assert option_keys.is_ignored(key, is_newer=False)
    assert not option_keys.is_ignored(key, is_newer=True)


@pytest.mark.parametrize("key", ["graph_memory_max_size", "variable_memory_max_size", "mstune_mode"])
def test_keys_without_effect_in_the_newer_adapter_are_known(key):
    assert option_keys.is_ignored(key, is_newer=True)
    assert not option_keys.is_ignored(key, is_newer=False)


def test_a_mode_that_is_for_inference_is_noted_where_it_trains():
    words = "--precision_mode force_fp16 in inference alone"
    training = Config().replace(precision_mode="force_fp16")
    assert any(words in note for note in npu_flags.notes(training))
    assert not any(words in note for note in npu_flags.notes(training.replace(command="evaluate")))


def test_the_split_of_gradients_fits_the_graph():
    given = Config().replace(gradient_split="idx:159,363", rank_size=8)
    npu_flags.check_gradient_split(given, 364)
    for gradients in (363, 365):
        with pytest.raises(UsageError) as caught:
            npu_flags.check_gradient_split(given, gradients)
        assert f"ends with 363, but this graph has {gradients} gradients" in str(caught.value)
        assert f"must be {gradients - 1}" in str(caught.value)


def test_no_key_is_both_open_and_decided():
    assert not set(option_keys.OPTIONS) & (set(option_keys.OWNED) | set(option_keys.REFUSED))


@pytest.mark.parametrize(
    ("text", "kind", "value"), [("none", "none", 1.0), ("dynamic", "dynamic", 1.0), ("512", "fixed", 512.0)]
)
def test_loss_scales(text, kind, value):
    assert npu_flags.loss_scale(Config().replace(loss_scale=text)) == (kind, value)


def plan(total, per_epoch, longest, save=10**6):
    return schedule.RunPlan(
        train_images=per_epoch,
        eval_images=0,
        global_batch=1,
        steps_per_epoch=per_epoch,
        total_steps=total,
        log_interval_steps=longest,
        save_interval_steps=save,
        eval_interval_steps=0,
        iterations_per_loop=longest,
    )


@pytest.mark.parametrize(
    ("run", "first_step", "length", "singles"),
    [
        (plan(40, 10, 10), 0, 10, 0),  # fits
        (plan(48, 12, 10), 0, 2, 0),  # chunks of 2, 4, 6, 8 and 10
        (plan(7, 100, 5), 0, 5, 2),  # chunks of 5 and 2: steps one by one would take more than twice the runs
        (plan(6, 100, 4), 0, 2, 0),  # chunks of 4 and 2
        (plan(7, 100, 1), 0, 1, 0),
        (plan(40, 10, 10), 5, 5, 0),  # resumed within an epoch
        (plan(3, 1000, 10), 0, 3, 0),
    ],
)
def test_loop_length(run, first_step, length, singles):
    chosen = loop_plan.choose(run, first_step)
    assert (chosen.length, chosen.single_steps) == (length, singles)
    steps = chosen.loops * chosen.length + chosen.single_steps
    assert steps == run.total_steps - first_step


def imagenet(**settings):
    config = Config().replace(rank_size=8, max_epochs=150, mode="train", **settings)
    return schedule.plan(config, 1281167, 50000)


def test_imagenet_on_eight_devices_is_900_loops_by_itself():
    chosen = loop_plan.choose(imagenet(), 0)
    assert (chosen.length, chosen.loops, chosen.single_steps) == (834, 900, 0)
    assert loop_plan.explain(chosen, imagenet()) == "loop length 834: 900 loops"


def test_intervals_that_no_loop_fits_are_named_with_what_would_fit():
    run = imagenet(iterations_per_loop=834, save_checkpoints_steps=5000)
    chosen = loop_plan.choose(run, 0)
    assert chosen.session_runs > 20 * 900
    text = loop_plan.explain(chosen, run)
    assert "does not for --save_checkpoints_steps (5000)" in text
    assert "--iterations_per_loop 0 --save_checkpoints_steps 0 would make it loops of 834" in text
    assert "would make it" not in loop_plan.explain(chosen, imagenet(display_every=1000))


def test_notes_say_that_without_loss_scaling_overflow_is_not_seen():
    assert any("--loss_scale 1" in note for note in npu_flags.notes(Config()))
    assert not npu_flags.notes(Config().replace(loss_scale="1"))


def test_an_older_adapter_is_not_left_without_a_precision_mode(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = Config().replace(
        npu_option=("precision_mode_v2=mixed_float16",), log_dir=str(tmp_path), backend="ascend"
    )
    parts = stand_ins.adapter_parts()
    assert backend.AscendBackend(asked, Topology(), parts).session_config()
    older = dataclasses.replace(parts, is_newer=False)
    with pytest.raises(UsageError, match="precision_mode_v2: the installed adapter does not read it"):
        backend.AscendBackend(asked, Topology(), older).session_config()
