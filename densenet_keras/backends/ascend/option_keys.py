"""The keys of the adapter's session options: their types, who decides them, which generation reads them.

From the sources of both generations (`tf_adapter/util/npu_attrs.cc`); no TensorFlow.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Tuple


class Option(NamedTuple):
    """One key of the session options."""

    field: str  # of the protocol buffer: b, i or s; a value in another one is read as zero, silently
    newer: bool = False  # older adapters ignore it
    choices: Tuple[str, ...] = ()


# Flags that are handed over under their own names.
PLAIN_FLAGS = ("precision_mode", "hcom_parallel")
PLAIN_FLAGS_IF_GIVEN = ("graph_memory_max_size", "modify_mixlist", "op_compiler_cache_dir")

# Takes the place of the first plain flag.
PRECISION_MODE_V2 = "precision_mode_v2"
MIXED_PRECISION = "allow_mix_precision"
NEEDS_BFLOAT16 = ("mixed_bfloat16", "mixed_hif8", "cube_hif8")
# Values of either key: float16 where the compiler thinks fit; the types of the graph.
MIXED_FLOAT16 = (MIXED_PRECISION, "mixed_float16")
ORIGINAL = ("must_keep_origin_dtype", "origin")
# Values of the other key under which there are lists to change.
MIXED_PRECISION_V2 = ("mixed_float16", "mixed_bfloat16", "mixed_hif8")

# Keys that follow from other flags, and the flags.
OWNED: Dict[str, str] = {
    "iterations_per_loop": "--iterations_per_loop",
    "precision_mode": "--precision_mode",
    "hcom_parallel": "--hcom_parallel",
    "profiling_mode": "--profiling",
    "profiling_options": "--profiling",
    "enable_dump": "--dump",
    "dump_path": "--dump",
    "dump_step": "--dump_step",
    "dump_mode": "--dump_mode",
    "enable_dump_debug": "--overflow_debug",
    "op_compiler_cache_dir": "--op_compiler_cache_dir",
    "graph_memory_max_size": "--graph_memory_max_size",
    "modify_mixlist": "--modify_mixlist",
}

_MIXED = "it belongs to mixed computing, which cuts the graph in two and ends the loop on the device"
_STATIC = "every shape of this project is static, and a loop on the device needs that"
_LAYOUT = "ranks and devices follow from --rank_size and the rank table"

# Keys that would break what the trainer relies on, and why.
REFUSED: Dict[str, str] = {
    "use_off_line": "without it everything stays on the host",
    "mix_compile_mode": "it cuts the graph in two, which ends the loop on the device",
    "in_out_pair": _MIXED,
    "in_out_pair_flag": _MIXED,
    "frozen_variable": "it makes constants of the variables, which are trained or restored on the device",
    "enable_data_pre_proc": "without it every iteration of a loop trains on the same batch",
    "graph_run_mode": "it follows from the command",
    "is_tailing_optimization": "it needs an optimizer that this project does not use",
    "job": _LAYOUT,
    "task_index": _LAYOUT,
    "local_rank_id": _LAYOUT,
    "local_device_list": _LAYOUT,
    "session_device_id": _LAYOUT + "; set ASCEND_DEVICE_ID for one rank",
    "dynamic_input": _STATIC,
    "dynamic_graph_execute_mode": _STATIC,
    "dynamic_inputs_shape_range": _STATIC,
    "input_shape": _STATIC,
    "dynamic_dims": _STATIC,
    "dynamic_node_type": _STATIC,
    "compile_dynamic_mode": _STATIC,
    "compile_hybrid_mode": _STATIC,
    "experimental_accelerate_train_mode": "it is told the step in variables (STEP_NOW) that are not set here",
    "variable_placement": "variables belong on the device, where the loop updates them",
}

_BOOLEANS = ("hcom_multi_mode", "lower_functional_ops", "variable_format_optimize", "enable_compress_weight")
_NEWER_BOOLEANS = (
    "external_weight",
    "input_batch_cpy",
    "oo_constant_folding",
    "all_tensor_not_empty",
    "enable_graph_parallel",
)
_INTEGERS = ("enable_small_channel", "op_debug_level")
_NEWER_INTEGERS = (
    "deterministic",
    "static_memory_policy",
    "atomic_clean_policy",
    "topo_sorting_mode",
    "input_fusion_size",
    "graph_max_parallel_model_num",
    "hccl_timeout",
    "op_wait_timeout",
    "op_execute_timeout",
    "stream_sync_timeout",
    "event_sync_timeout",
    "graph_exec_timeout",
)
_STRINGS = (
    "enable_scope_fusion_passes",
    "variable_memory_max_size",
    "stream_max_parallel_num",
    "optypelist_for_implmode",
    "fusion_switch_file",
    "auto_tune_mode",
    "work_path",
    "debug_dir",
    "compress_weight_conf",
)
_NEWER_STRINGS = (
    "customize_dtypes",
    "op_precision_mode",
    "aoe_config_file",
    "graph_compiler_cache_dir",
    "HCCL_algorithm",
    "dump_layer",
    "op_debug_config",
    "oo_level",
    "aicore_num",
    "memory_optimization_policy",
    "optimization_switch",
    "auto_multistream_parallel_mode",
    "const_input",
    "device_type",
    "distribute_config",
    "experimental_logical_device_cluster_deploy_mode",
    "experimental_logical_device_id",
    "experimental_model_deploy_devicelist",
    "experimental_model_deploy_mode",
    "graph_parallel_option_path",
    "insert_op_file",
    "resource_config_path",
    "soc_config",
)

# What --npu_option accepts, by key.
OPTIONS: Dict[str, Option] = {
    **{key: Option("b") for key in _BOOLEANS},
    **{key: Option("b", newer=True) for key in _NEWER_BOOLEANS},
    **{key: Option("i") for key in _INTEGERS},
    **{key: Option("i", newer=True) for key in _NEWER_INTEGERS},
    **{key: Option("s") for key in _STRINGS},
    **{key: Option("s", newer=True) for key in _NEWER_STRINGS},
    "op_select_implmode": Option("s", choices=("high_performance", "high_precision")),
    "buffer_optimize": Option("s", choices=("l2_optimize", "off_optimize")),
    "op_compiler_cache_mode": Option("s", choices=("enable", "force", "disable")),
    "mstune_mode": Option("s", choices=("1", "2", "3", "4")),
    "enable_exception_dump": Option("i", choices=("0", "1", "2")),
    "dump_debug_mode": Option("s", choices=("aicore_overflow", "atomic_overflow", "all")),
    "aoe_mode": Option("s", newer=True, choices=("1", "2", "4")),
    "jit_compile": Option("s", newer=True, choices=("true", "false", "auto")),
    "ac_parallel_enable": Option("s", newer=True, choices=("0", "1")),
    "quant_dumpable": Option("s", newer=True, choices=("0", "1")),
    "graph_slice": Option("s", newer=True, choices=("auto", "manual")),
    "shape_generalization_mode": Option("s", newer=True, choices=("STRICT", "FULL", "ADAPTIVE")),
    "dump_data": Option("s", newer=True, choices=("tensor", "stats")),
    "export_compile_stat": Option("i", newer=True, choices=("0", "1", "2")),
    "variable_use_1g_huge_page": Option("i", newer=True, choices=("0", "1", "2")),
    PRECISION_MODE_V2: Option(
        "s", newer=True, choices=("fp16", "origin", "cube_fp16in_fp32out", "cube_hif8", *MIXED_PRECISION_V2)
    ),
}

# Without effect in the newer adapter: its compiler takes the memory that a network needs.
_OLDER = ("mstune_mode", "graph_memory_max_size", "variable_memory_max_size")

# Keys whose values are files that must exist.
FILES = (
    "modify_mixlist",
    "fusion_switch_file",
    "aoe_config_file",
    "customize_dtypes",
    "op_precision_mode",
    "compress_weight_conf",
    "distribute_config",
    "graph_parallel_option_path",
    "insert_op_file",
    "resource_config_path",
)

# Pairs of which the adapter ends the process: a key without the one it needs, and two that exclude another.
NEEDED_WITH = {"optypelist_for_implmode": "op_select_implmode", "mstune_mode": "work_path"}
EXCLUDED_BY = {"compress_weight_conf": "enable_compress_weight"}

# Keys whose values are folders.
FOLDERS = ("dump_path", "op_compiler_cache_dir", "debug_dir", "work_path", "graph_compiler_cache_dir")


def is_ignored(key: str, is_newer: bool) -> bool:
    """Whether adapters of this generation take no notice of the key, without a word."""
    if is_newer:
        return key in _OLDER
    return key == "modify_mixlist" or (key in OPTIONS and OPTIONS[key].newer)


def keep_float32(is_newer: bool) -> str:
    """How a user keeps an operator in float32, in the words of an advice."""
    if is_newer:
        return "keep it in float32 with --modify_mixlist FILE"
    return "train with --precision_mode allow_fp32_to_fp16: this adapter does not read --modify_mixlist"
