"""The group of settings for ranks and the hardware under them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from densenet_keras.settings.setting import TRAINING, at_least, flag

# From the general one to the special: auto takes the last that can be used.
BACKENDS = ("tensorflow", "ascend")


@dataclass(frozen=True)
class DeviceConfig:
    """Device: ranks and the hardware under them."""

    rank_size: int = flag(1, "number of ranks, each with one device, over all hosts", rule=at_least(1))
    backend: str = flag(
        "auto",
        "tensorflow (CPU or GPU) or ascend (NPU); auto takes ascend where the adapter is installed",
        choices=("auto", *BACKENDS),
    )
    intra_op_threads: Optional[int] = flag(
        None,
        "threads of one TensorFlow operation; they decide the last bits of a CPU run; default: the "
        "rank's share of the cores, or what the run in log_dir used",
        rule=at_least(1),
    )
    fast_cpu: Optional[bool] = flag(
        None,
        "on a CPU, faster forms of the same operations, equal to rounding; false: TensorFlow's own; "
        "default: true, or what the run in log_dir used; without effect on GPUs and NPUs",
    )
    statistics_average: str = flag(
        "step",
        "when ranks average the moving statistics of batch normalisation: in every step, or before saving "
        "and evaluating only, which makes steps shorter; between saves each rank then has its own",
        choices=("step", "save"),
        commands=TRAINING,
    )
    recompute: bool = flag(
        False,
        "compute the insides of dense layers again for the gradients instead of keeping them: the same "
        "bits with less memory; without effect where normalisation keeps its statistics",
        commands=TRAINING,
    )
    first_step_timeout_seconds: int = flag(
        3600,
        "how long the first step, with compilation, may take before the run is given up",
        rule=at_least(1),
    )
    step_timeout_seconds: int = flag(
        60,
        "how long a rank may make no progress before the run is given up; raised by itself to 20 "
        "times the usual time of a step, or of a session.run where steps run on the device",
        rule=at_least(1),
    )
    max_restarts: Optional[int] = flag(
        None,
        "how often ranks are started again from the newest checkpoint after a crash, a hang or a lost rank; "
        "default: 3, and 0 under Slurm and Volcano, which restart jobs themselves, and on several hosts",
        rule=at_least(0),
        commands=TRAINING,
    )
    dry_run: bool = flag(
        False, "print the whole plan and the graph check, without a device or the adapter, and stop"
    )
