"""Every command-line flag is one field below: name, default, help, allowed values, nowhere else.

`cli` turns the fields into options, `config` into run.json. "README" and "code" in help texts are
those of the original Estimator implementation that this project succeeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from densenet_keras.network.preprocessing import PREPROCESSINGS, TORCH
from densenet_keras.network.variants import BN_EPSILON, BN_MOMENTUM, BN_SIZE, STANDARD, STEMS, VARIANTS
from densenet_keras.settings.setting import (
    EVALUATE,
    FINETUNE,
    TRAIN,
    TRAINING,
    Rule,
    at_least,
    between,
    flag,
    matches,
)

# From the general one to the special: auto takes the last that can be used.
BACKENDS = ("tensorflow", "ascend")

MODELS = tuple(VARIANTS)

NOT_EMPTY = Rule(lambda value: value != "", "must not be empty")
POSITIVE = Rule(lambda value: value > 0, "must be greater than 0")
SHARE = between(0, 1, "must be at least 0 and less than 1")
MODULE_FUNCTION = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"


@dataclass(frozen=True)
class DataConfig:
    """Data: where the images come from and how they are augmented."""

    data_dir: str = flag(
        "path/data",
        "folder of the TFRecord shards train-* and validation-* (TF-Slim ImageNet layout)",
        rule=NOT_EMPTY,
        metavar="DIR",
    )
    shards: str = flag(
        "",
        "numbers of the training shards to use, such as 0-99 or 0-9,20; empty for all",
        commands=TRAINING,
        rule=matches(r"(\d+(-\d+)?(,\d+(-\d+)?)*)?", "must be numbers and ranges, such as 0-99 or 0-9,20"),
    )
    synthetic_data: bool = flag(
        False, "random images and labels instead of data_dir, to measure the step alone"
    )
    batch_size: int = flag(32, "images per rank and step", rule=at_least(1), command_defaults={FINETUNE: 16})
    seed: int = flag(
        0,
        "decides initial weights, data order and augmentation",
        commands=TRAINING,
        rule=between(0, 2**31, "must be at least 0 and less than 2147483648"),
    )
    label_offset: int = flag(
        1,
        "label of the first class in the records; TF-Slim's ImageNet labels start at 1",
        rule=at_least(0),
    )
    min_crop_area: float = flag(
        0.08,
        "smallest share of the image area that a random training crop covers; 1 keeps the whole image",
        commands=TRAINING,
        rule=Rule(lambda value: 0 < value <= 1, "must be greater than 0 and at most 1"),
    )
    horizontal_flip: bool = flag(
        True, "mirror every second training image, drawn per image", commands=TRAINING
    )
    data_threads: Optional[int] = flag(
        None, "parallel decoders of one rank; default: its share of the cores", rule=at_least(1)
    )


@dataclass(frozen=True)
class ModelConfig:
    """Model: which network."""

    model: str = flag(MODELS[0], "which network", choices=MODELS)
    num_classes: Optional[int] = flag(
        None,
        "classes; default: 1000, for densenet_cifar and densenet_tiny 10; finetune.py finds them in the data",
        rule=at_least(2),
    )
    image_size: Optional[int] = flag(
        None,
        "height and width of the network's input in pixels; default: 224, for densenet_cifar and "
        "densenet_tiny 32",
        rule=Rule(lambda value: value >= 32, "must be at least 32"),
    )
    growth_rate: Optional[int] = flag(
        None, "feature maps that each dense layer adds; default: the network's own", rule=at_least(1)
    )
    bn_size: int = flag(
        BN_SIZE, "width of the 1x1 bottleneck in growth rates (paper section 3)", rule=at_least(1)
    )
    drop_rate: float = flag(0.0, "dropout after each 3x3 convolution; ImageNet uses none", rule=SHARE)
    bn_momentum: float = flag(
        BN_MOMENTUM, "decay of the batch-normalisation moving averages (the original's 0.9)", rule=SHARE
    )
    bn_epsilon: float = flag(
        BN_EPSILON,
        "epsilon of batch normalisation (the original's 1e-3; paper code and Keras 1e-5)",
        rule=POSITIVE,
    )
    stem: str = flag(
        STANDARD,
        "standard: convolution, batch norm, ReLU and padded pool, as in the paper; original: without batch "
        "norm, ReLU and the pool's padding, for weights of the original implementation",
        choices=STEMS,
    )
    preprocessing: str = flag(
        TORCH,
        "what the network sees of a picture: "
        + "; ".join(f"{name}: {kind.meaning}" for name, kind in PREPROCESSINGS.items()),
        choices=tuple(PREPROCESSINGS),
    )
    dtype: str = flag(
        "tf.float32",
        "type the normalised images are rounded to before the first convolution, with or without "
        "`tf.`; weights stay float32",
        choices=("tf.float32", "tf.float16"),
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer: objective, update and learning rate."""

    lr: float = flag(
        0.1,
        "learning rate at the start (README: 0.01 in its table, 0.1 in its text; code and every script: "
        "0.1, which is also the paper's for a global batch of 256, so 0.1 here)",
        commands=TRAINING,
        rule=POSITIVE,
        command_defaults={FINETUNE: 0.03},
    )
    T_max: int = flag(
        150,
        "epochs after which the cosine reaches zero; it stays there; finetune.py takes max_epochs where "
        "this is not given",
        commands=TRAINING,
        rule=at_least(1),
    )
    lr_update: str = flag(
        "epoch",
        "whether the cosine moves once an epoch, as in the original, or every step",
        choices=("epoch", "step"),
        commands=TRAINING,
        command_defaults={FINETUNE: "step"},
    )
    warmup_epochs: float = flag(
        0.0, "epochs of linear warm-up from 0 to lr, inside T_max", commands=TRAINING, rule=at_least(0)
    )
    momentum: float = flag(0.9, "momentum of the optimizer", commands=TRAINING, rule=SHARE)
    use_nesterov: bool = flag(True, "Nesterov's form of momentum", commands=TRAINING)
    label_smoothing: float = flag(
        0.1,
        "share of each training label spread over all classes; never applied in evaluation",
        commands=TRAINING,
        rule=SHARE,
    )
    weight_decay: float = flag(1e-4, "factor of the L2 loss", commands=TRAINING, rule=at_least(0))
    weight_decay_on: str = flag(
        "all",
        "variables with weight decay: all, as the original, or kernels (no batch-norm, no biases)",
        choices=("all", "kernels"),
        commands=TRAINING,
    )


@dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tuning: which part of the network learns, and how fast."""

    freeze: str = flag(
        "none",
        "the part of the network, from the images up to and including this one, that stays as it is: no "
        "update, no weight decay, its batch normalisation keeps its moving statistics; all leaves the "
        "classifier alone to learn",
        choices=("none", "stem", "block1", "block2", "block3", "block4", "all"),
        commands=(FINETUNE,),
    )
    bn_statistics: str = flag(
        "train",
        "whether batch normalisation outside the frozen part normalises by the batch and goes on averaging "
        "(train), or keeps the statistics of the checkpoint (keep), as very small data may want",
        choices=("train", "keep"),
        commands=(FINETUNE,),
    )
    head_lr_multiplier: float = flag(
        1.0,
        "how many times faster than the rest the new classifier learns",
        commands=(FINETUNE,),
        rule=POSITIVE,
    )


@dataclass(frozen=True)
class RunConfig:
    """Run: how long, how often, where to."""

    mode: str = flag(
        "train_and_evaluate",
        "train, evaluate the checkpoints of eval_dir, or train and evaluate in turn",
        choices=("train", "evaluate", "train_and_evaluate"),
        commands=TRAINING,
    )
    max_train_steps: int = flag(
        150,
        "steps to train when max_epochs is not given (README: 150; code: 100; 150 here, the "
        "documented value)",
        commands=TRAINING,
        rule=at_least(1),
    )
    max_epochs: Optional[int] = flag(
        None,
        "epochs to train; takes precedence over max_train_steps",
        commands=TRAINING,
        rule=at_least(1),
        command_defaults={FINETUNE: 30},
    )
    epochs_between_evals: int = flag(
        5,
        "epochs from one evaluation to the next in mode train_and_evaluate; the end of training is "
        "always evaluated (the original left out a last, shorter round)",
        commands=TRAINING,
        rule=at_least(1),
        command_defaults={FINETUNE: 1},
    )
    iterations_per_loop: int = flag(
        10,
        "training steps in one session.run; on an NPU they run on the device without the host",
        commands=TRAINING,
        rule=at_least(1),
    )
    display_every: int = flag(
        1,
        "steps from one log line to the next; a session.run logs once at most, so fewer than "
        "iterations_per_loop means once per session.run",
        commands=TRAINING,
        rule=at_least(1),
    )
    save_checkpoints_steps: int = flag(
        5000,
        "steps from one checkpoint to the next; what is evaluated and the end are saved too",
        commands=TRAINING,
        rule=at_least(1),
    )
    keep_checkpoint_max: int = flag(
        5, "newest checkpoints that are kept", commands=TRAINING, rule=at_least(1)
    )
    keep_best: bool = flag(
        False,
        "keep the checkpoint with the best top-1 of all evaluations in the folder best of log_dir, "
        "which evaluate, finetune, predict and export take",
        commands=TRAINING,
        command_defaults={FINETUNE: True},
    )
    patience_evals: Optional[int] = flag(
        None,
        "end training after so many evaluations in a row without a better top-1; default: never",
        commands=TRAINING,
        rule=at_least(1),
    )
    log_dir: str = flag(
        "./model_1p",
        "run folder: checkpoints, logs, run.json; a run that is there already is continued",
        rule=NOT_EMPTY,
        metavar="DIR",
        command_defaults={EVALUATE: "./model_evaluation", FINETUNE: "./model_finetune"},
    )
    log_name: str = flag(
        "densenet121.log",
        "name of the log file in log_dir (README: densenet121.log; code: densenet121_training.log; the "
        "documented name here)",
        rule=matches(
            r"(?!\.\.?$)[^/\\\0]+",
            "must be a file name without folders, such as train.log; --log_dir names the folder",
        ),
        metavar="NAME",
    )
    eval_dir: str = flag(
        "path/eval",
        "checkpoint, or folder of checkpoints (then each is evaluated), in evaluate.py and mode evaluate",
        rule=NOT_EMPTY,
        metavar="PATH",
    )
    json: str = flag(
        "", "file to write the evaluation table to, as JSON", metavar="FILE", commands=(TRAIN, EVALUATE)
    )
    restore_path: str = flag(
        "",
        "checkpoint, folder whose newest is taken, or file of weights of another program, to start from when "
        "log_dir holds none (README: /code/ckpt/model.ckpt-100; code: none; none here)",
        aliases=("--restore",),
        metavar="CKPT",
        commands=TRAINING,
    )
    restore_exclude: Tuple[str, ...] = flag(
        ("linear/",),
        "prefixes of variables that restore_path does not fill, separated by blanks or commas; linear/ "
        "is the classifier (README: linear/; one version of the code also global_step, which is never "
        "taken from restore_path here)",
        metavar="PREFIX",
        commands=TRAINING,
        rule=matches(r"[A-Za-z0-9_.][\w./\\-]*", "must be the beginning of a variable name, such as linear/"),
    )
    callbacks: str = flag(
        "",
        "function that returns a list of your own Keras callbacks; the module is looked up from the "
        "current folder",
        rule=matches(f"({MODULE_FUNCTION})?", "must be MODULE:FUNCTION, such as my_callbacks:make"),
        metavar="MODULE:FUNCTION",
        commands=TRAINING,
    )


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
    first_step_timeout_seconds: int = flag(
        3600,
        "how long the first step, with compilation, may take before the run is given up",
        rule=at_least(1),
    )
    step_timeout_seconds: int = flag(
        600,
        "how long a rank may make no progress before the run is given up; raised by itself to 20 "
        "times the learned time of a session.run",
        rule=at_least(1),
    )
    dry_run: bool = flag(
        False, "print the whole plan and the graph check, without a device or the adapter, and stop"
    )
