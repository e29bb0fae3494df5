"""The resolved configuration of one command: frozen records, validation, JSON round trip.

Every command-line flag is one field below: its name, default, help text and choices stand here and
nowhere else. `cli` turns fields into argparse options, `run.json` is `Config.to_json()`.

"README" and "code" in help texts are those of the original Estimator implementation that this
project succeeds.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

from densenet_keras.errors import UsageError

TRAIN = "train"
EVALUATE = "evaluate"
FINETUNE = "finetune"
ALL = (TRAIN, EVALUATE, FINETUNE)
TRAINING = (TRAIN, FINETUNE)

MODELS = (
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "densenet264",
    "densenet_cifar",
    "densenet_tiny",
)


def flag(
    default: Any,
    help: str,
    *,
    commands: Tuple[str, ...] = ALL,
    choices: Optional[Tuple[str, ...]] = None,
    aliases: Tuple[str, ...] = (),
    metavar: Optional[str] = None,
) -> Any:
    """A dataclass field that is also the command-line flag of the same name.

    `choices` are the only values allowed (strings); `aliases` are further spellings of the flag.
    Optional fields left at None are filled in by `resolve` before a run starts.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "commands": commands,
            "choices": choices,
            "aliases": aliases,
            "metavar": metavar,
        },
    )


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from and how they are augmented."""

    data_dir: str = flag(
        "path/data",
        "folder of the TFRecord shards train-* and validation-* (TF-Slim ImageNet layout)",
        metavar="DIR",
    )
    synthetic_data: bool = flag(
        False, "random images and labels instead of data_dir, to measure the step alone"
    )
    batch_size: int = flag(32, "images per rank and step")
    seed: int = flag(
        0, "decides initial weights, data order and augmentation", commands=TRAINING
    )
    label_offset: int = flag(
        1, "label of the first class in the records; TF-Slim's ImageNet labels start at 1"
    )
    min_crop_area: float = flag(
        0.08,
        "smallest share of the image area that a random training crop covers; 1 keeps the whole image",
        commands=TRAINING,
    )
    horizontal_flip: bool = flag(
        True, "mirror every second training image, drawn per image", commands=TRAINING
    )
    data_threads: Optional[int] = flag(
        None, "parallel decoders of one rank; default: its share of the cores"
    )


@dataclass(frozen=True)
class ModelConfig:
    """Which network."""

    model: str = flag("densenet121", "which network", choices=MODELS)
    num_classes: Optional[int] = flag(
        None, "classes; default: 1000, for densenet_cifar and densenet_tiny 10"
    )
    image_size: Optional[int] = flag(
        None,
        "height and width of the network's input in pixels; default: 224, for densenet_cifar and "
        "densenet_tiny 32",
    )
    growth_rate: Optional[int] = flag(
        None, "feature maps that each dense layer adds; default: the network's own"
    )
    bn_size: int = flag(4, "width of the 1x1 bottleneck in growth rates (paper section 3)")
    drop_rate: float = flag(0.0, "dropout after each 3x3 convolution; ImageNet uses none")
    bn_momentum: float = flag(
        0.9, "decay of the batch-normalisation moving averages (the original's 0.9)"
    )
    bn_epsilon: float = flag(
        1e-3, "epsilon of batch normalisation (the original's 1e-3; paper code and Keras 1e-5)"
    )
    dtype: str = flag(
        "tf.float32",
        "type the normalised images are rounded to before the first convolution; weights stay float32",
        choices=("tf.float32", "tf.float16"),
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """Objective, optimizer and learning rate."""

    lr: float = flag(
        0.1,
        "learning rate at the start (README: 0.01; the code and every script of the original: 0.1, "
        "which is also the paper's for a global batch of 256)",
        commands=TRAINING,
    )
    T_max: int = flag(150, "epochs after which the cosine reaches zero", commands=TRAINING)
    lr_update: str = flag(
        "epoch",
        "whether the cosine moves once an epoch, as in the original, or every step",
        choices=("epoch", "step"),
        commands=TRAINING,
    )
    warmup_epochs: float = flag(
        0.0, "epochs of linear warm-up from 0 to lr, inside T_max", commands=TRAINING
    )
    momentum: float = flag(0.9, "momentum of the optimizer", commands=TRAINING)
    use_nesterov: bool = flag(True, "Nesterov's form of momentum", commands=TRAINING)
    label_smoothing: float = flag(
        0.1, "share of each training label spread over all classes", commands=TRAINING
    )
    weight_decay: float = flag(1e-4, "factor of the L2 loss", commands=TRAINING)
    weight_decay_on: str = flag(
        "all",
        "variables with weight decay: all, as the original, or kernels (no batch-norm, no biases)",
        choices=("all", "kernels"),
        commands=TRAINING,
    )


@dataclass(frozen=True)
class RunConfig:
    """How long, how often, where to."""

    mode: str = flag(
        "train_and_evaluate",
        "train, evaluate the checkpoints of eval_dir, or train and evaluate in turn",
        choices=("train", "evaluate", "train_and_evaluate"),
        commands=TRAINING,
    )
    max_train_steps: int = flag(
        150,
        "steps to train when max_epochs is not given (README: 150; code: 100)",
        commands=TRAINING,
    )
    max_epochs: Optional[int] = flag(
        None, "epochs to train; goes before max_train_steps", commands=TRAINING
    )
    epochs_between_evals: int = flag(
        5,
        "epochs from one evaluation to the next in mode train_and_evaluate; the end of training is "
        "always evaluated",
        commands=TRAINING,
    )
    iterations_per_loop: int = flag(
        10,
        "training steps in one session.run; on an NPU they run on the device without the host",
        commands=TRAINING,
    )
    display_every: int = flag(
        1,
        "steps from one log line to the next; a session.run logs once at most, so fewer than "
        "iterations_per_loop means once per session.run",
        commands=TRAINING,
    )
    save_checkpoints_steps: int = flag(
        5000, "steps from one checkpoint to the next; the end is always saved", commands=TRAINING
    )
    keep_checkpoint_max: int = flag(5, "newest checkpoints that are kept", commands=TRAINING)
    log_dir: str = flag("./model_1p", "run folder: checkpoints, logs, run.json", metavar="DIR")
    log_name: str = flag(
        "densenet121.log",
        "name of the log file in log_dir (README; code: densenet121_training.log)",
    )
    eval_dir: str = flag(
        "path/eval", "checkpoint, or folder of checkpoints, to evaluate", metavar="PATH"
    )
    json: str = flag("", "file to write the evaluation table to, as JSON", metavar="FILE",
                     commands=(EVALUATE,))
    restore_path: str = flag(
        "",
        "checkpoint, or folder whose newest is taken, to start from when log_dir holds none",
        aliases=("--restore",),
        metavar="CKPT",
        commands=TRAINING,
    )
    restore_exclude: Tuple[str, ...] = flag(
        ("linear/",),
        "prefixes of variables that restore_path does not fill; linear/ is the classifier "
        "(code: also global_step, which is never taken from restore_path here)",
        metavar="PREFIX",
        commands=TRAINING,
    )
    callbacks: str = flag(
        "",
        "function that returns a list of your own Keras callbacks",
        metavar="MODULE:FUNCTION",
        commands=TRAINING,
    )


@dataclass(frozen=True)
class DeviceConfig:
    """Ranks and the hardware under them."""

    rank_size: int = flag(1, "number of ranks, each with one device, over all hosts")
    backend: str = flag(
        "auto",
        "tensorflow (CPU or GPU) or ascend (NPU); auto takes ascend where the adapter is installed",
        choices=("auto", "tensorflow", "ascend"),
    )
    intra_op_threads: Optional[int] = flag(
        None,
        "threads of one TensorFlow operation; they decide the last bits of a CPU run; default: the "
        "rank's share of the cores, or what the run in log_dir used",
    )
    first_step_timeout_seconds: int = flag(
        3600, "how long the first step, with compilation, may take before the run is given up"
    )
    step_timeout_seconds: int = flag(
        600,
        "how long a rank may make no progress before the run is given up; raised by itself to 20 "
        "times the learned time of a session.run",
    )


@dataclass(frozen=True)
class AscendConfig:
    """What users of the NPU tune; without effect on other backends, and then refused if given."""

    precision_mode: str = flag(
        "allow_mix_precision",
        "how the NPU compiler chooses between float16 and float32",
        choices=(
            "allow_mix_precision",
            "allow_fp32_to_fp16",
            "force_fp16",
            "must_keep_origin_dtype",
        ),
    )
    loss_scale: str = flag(
        "none",
        "none, a number of at least 1 (fixed), or dynamic",
        commands=TRAINING,
    )
    max_skipped_steps: int = flag(
        100, "steps skipped for overflow in a row before training gives up", commands=TRAINING
    )
    hcom_parallel: bool = flag(True, "overlap gradient allreduce with the backward pass")
    gradient_split: str = flag(
        "",
        "gradient fusion: idx:159,363 (last gradient of each segment) or size:60,20,20 (percent)",
        commands=TRAINING,
    )
    profiling: str = flag("", "folder for a profile of the run", metavar="DIR")
    dump: str = flag("", "folder for a dump of operator data", metavar="DIR")
    dump_step: str = flag("", "which steps to dump, such as 0|5|10-20; default all")
    dump_mode: str = flag(
        "output", "which operator data to dump", choices=("input", "output", "all")
    )
    overflow_debug: str = flag(
        "", "folder for data of operators that overflow", metavar="DIR"
    )
    op_compiler_cache_dir: str = flag(
        "", "folder that keeps compiled operators from run to run", metavar="DIR"
    )
    graph_memory_max_size: str = flag("", "bytes for feature maps, such as 26*1024*1024*1024")
    modify_mixlist: str = flag("", "JSON file that changes the mixed-precision lists",
                               metavar="FILE")
    npu_option: Tuple[str, ...] = flag(
        (), "any other session option of the adapter; may be repeated", metavar="KEY=VALUE"
    )
    rank_table: str = flag(
        "", "rank table to use; default: written from /etc/hccn.conf", metavar="FILE"
    )
    dry_run: bool = flag(
        False, "print the whole plan and the graph check, without an NPU, and stop"
    )


@dataclass(frozen=True)
class Config:
    """One command, all of it. Flag names are unique over the groups."""

    command: str = TRAIN
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    run: RunConfig = RunConfig()
    device: DeviceConfig = DeviceConfig()
    ascend: AscendConfig = AscendConfig()

    def to_json(self) -> Dict[str, Any]:
        """The configuration as nested plain objects."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(values: Dict[str, Any]) -> Config:
        """The inverse of `to_json`.

        Raises:
            UsageError: a group or name that no flag has (a file of another version, or a typing error).
        """
        groups: Dict[str, Any] = {}
        for name, kind in GROUPS.items():
            given = dict(values.get(name, {}))
            known = {f.name for f in dataclasses.fields(kind)}
            for unknown in sorted(set(given) - known):
                raise UsageError(f"{name}.{unknown} is no setting of this version; remove it")
            for f in dataclasses.fields(kind):
                if f.name in given and isinstance(given[f.name], list):
                    given[f.name] = tuple(given[f.name])
            groups[name] = kind(**given)
        unknown_groups = sorted(set(values) - set(GROUPS) - {"command"})
        if unknown_groups:
            raise UsageError(f"{unknown_groups[0]} is no group of settings of this version; remove it")
        return Config(command=values.get("command", TRAIN), **groups)

    def replace(self, **values: Any) -> Config:
        """A copy with the named settings changed: `config.replace(batch_size=8, lr=0.2)`."""
        changes: Dict[str, Any] = {}
        for name, value in values.items():
            if name == "command":
                changes["command"] = value
                continue
            group = group_of(name)
            current = changes.get(group, getattr(self, group))
            changes[group] = dataclasses.replace(current, **{name: value})
        return dataclasses.replace(self, **changes)


GROUPS = {
    "data": DataConfig,
    "model": ModelConfig,
    "optimizer": OptimizerConfig,
    "run": RunConfig,
    "device": DeviceConfig,
    "ascend": AscendConfig,
}


def group_of(name: str) -> str:
    """The group that holds setting `name`; KeyError if none does."""
    for group, kind in GROUPS.items():
        if any(f.name == name for f in dataclasses.fields(kind)):
            return group
    raise KeyError(name)


def load(path: str) -> Config:
    """The configuration in a run.json.

    Raises:
        UsageError: the file is missing, not JSON, or holds settings this version does not know.
    """
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except OSError as error:
        raise UsageError(f"configuration {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"configuration {path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"configuration {path} must hold one JSON object, as run.json does")
    return Config.from_json(values)
