"""What is trained, on what and how: every flag is one field, with its default, help and allowed values.

`arguments` turns the fields into options, `config` into run.json. "README" and "code" in help texts are
those of the original Estimator implementation that this project succeeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from densenet_keras.network.preprocessing import PREPROCESSINGS, TORCH
from densenet_keras.network.variants import BN_EPSILON, BN_MOMENTUM, BN_SIZE, STANDARD, STEMS, VARIANTS
from densenet_keras.settings.setting import (
    FINETUNE,
    NOT_EMPTY,
    POSITIVE,
    TRAINING,
    Rule,
    at_least,
    between,
    flag,
    matches,
)

MODELS = tuple(VARIANTS)

SHARE = between(0, 1, "must be at least 0 and less than 1")


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
    bad_record_share: float = flag(
        0.0001,
        "share of a split's records that may be damaged or undecodable: they are passed over and listed in "
        "bad_records.jsonl; more end the run",
        rule=SHARE,
    )
    strict: bool = flag(False, "end the run at the first bad record, whatever bad_record_share permits")


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
