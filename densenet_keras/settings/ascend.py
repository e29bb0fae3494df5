"""The group of settings that means something on Ascend NPUs alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

from densenet_keras.settings.setting import TRAINING, at_least, flag


@dataclass(frozen=True)
class AscendConfig:
    """Ascend: what users of the NPU tune; without effect on other backends, and then refused if given."""

    npu: str = flag(
        "auto",
        "which NPU: 910, 910b (Atlas A2), 910c (Atlas A3); auto takes the one in this machine, else the 910",
        choices=("auto", "910", "910b", "910c"),
    )
    precision_mode: str = flag(
        "allow_mix_precision",
        "how the NPU compiler chooses between float16 and float32",
        choices=("allow_mix_precision", "allow_fp32_to_fp16", "force_fp16", "must_keep_origin_dtype"),
    )
    loss_scale: str = flag(
        "none", "none, a number of at least 1 (fixed), or dynamic", commands=TRAINING, metavar="SCALE"
    )
    max_skipped_steps: int = flag(
        100,
        "steps skipped for overflow in a row before training gives up",
        commands=TRAINING,
        rule=at_least(1),
    )
    hcom_parallel: bool = flag(True, "overlap gradient allreduce with the backward pass")
    gradient_split: str = flag(
        "",
        "gradient fusion: idx:159,363 (last gradient of each segment) or size:60,20,20 (percent)",
        commands=TRAINING,
        metavar="SPLIT",
    )
    profiling: str = flag("", "folder for a profile of the run", metavar="DIR")
    dump: str = flag("", "folder for a dump of operator data", metavar="DIR")
    dump_step: str = flag("", "which steps to dump, such as 0|5|10-20; default: all", metavar="STEPS")
    dump_mode: str = flag("output", "which operator data to dump", choices=("input", "output", "all"))
    overflow_debug: str = flag("", "folder for data of operators that overflow", metavar="DIR")
    op_compiler_cache_dir: str = flag(
        "", "folder that keeps compiled operators from run to run; default: ~/atc_data", metavar="DIR"
    )
    graph_memory_max_size: str = flag(
        "",
        "bytes for feature maps, such as 26*1024*1024*1024; without effect in newer adapters",
        metavar="BYTES",
    )
    modify_mixlist: str = flag("", "JSON file that changes the mixed-precision lists", metavar="FILE")
    npu_option: Tuple[str, ...] = flag(
        (), "any other session option of the adapter; may be repeated", metavar="KEY=VALUE", repeated=True
    )
    rank_table: str = flag("", "rank table to use; default: written from /etc/hccn.conf", metavar="FILE")
