"""Weights of other programs where a command takes a checkpoint: which they are, and what they ask of a run.

No TensorFlow, unless the weights are a checkpoint of the original implementation.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Mapping, Optional

from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import run_folder
from densenet_keras.commands.tensorflow_import import import_tensorflow
from densenet_keras.errors import UsageError
from densenet_keras.network.variables import Shape, variables
from densenet_keras.network.variants import BN_EPSILON, VARIANTS
from densenet_keras.network.weights import source as weights
from densenet_keras.network.weights.names import ORIGINAL_MARK, OWN_LAYOUT
from densenet_keras.network.weights.source import Source
from densenet_keras.settings.config import Config, ModelConfig

_NOT_IN_VARIABLES = ("bn_epsilon", "bn_momentum", "preprocessing", "drop_rate", "dtype", "image_size")


def located(path: str) -> str:
    """The file that `path` names, or the prefix of the checkpoint: in a folder, of the newest.

    Raises:
        UsageError: there is neither.
    """
    if is_file(path):
        return path
    return checkpoint_files.resolve(path)


def is_file(path: str) -> bool:
    """Whether `path` is a file of its own, not one of those that make a TensorFlow checkpoint."""
    name = os.path.basename(path)
    return os.path.isfile(path) and not name.endswith(".index") and ".data-" not in name


def opened(path: str) -> Optional[Source]:
    """The weights in `path` if they are of another program; None if they are of this one, or none at all.

    Raises:
        UsageError: a file that does not hold weights, or is damaged.
    """
    if is_file(path):
        return weights.open_source(path)
    try:
        prefix = checkpoint_files.resolve(path)
    except UsageError:
        return None
    with open(prefix + ".index", "rb") as index:
        theirs = ORIGINAL_MARK in index.read()  # names stand there as they are: nothing is compressed
    if not theirs:
        return None
    import_tensorflow()
    return weights.open_source(prefix)


def network_of(source: Source, given: Mapping[str, Any]) -> Dict[str, Any]:
    """The settings of the network that a file is of, those in `given` as they are.

    Raises:
        UsageError: the file cannot tell one and it was not given.
    """
    found = weights.network_settings(source)
    found["preprocessing"] = weights.preprocessing_of(source, found.get("num_classes"))
    if source.layout is OWN_LAYOUT:
        found.update(_told_beside(source, given))
    found.update({name: value for name, value in given.items() if value is not None})
    if found["preprocessing"] is None:
        raise UsageError(
            f"{source.path} has {weights.network_settings(source)['num_classes']} classes, so it was trained "
            "anew, and no file tells how pictures were scaled for that; give --preprocessing torch "
            "(RGB, mean and standard deviation of ImageNet, what most programs do), tf, caffe or caffe_scaled"
        )
    names = {*ModelConfig.__dataclass_fields__}
    return {name: value for name, value in found.items() if name in names}


def _told_beside(source: Source, given: Mapping[str, Any]) -> Dict[str, Any]:
    """The settings that no variable of this project's own tells."""
    stored = run_folder.stored_network(source.path)
    if stored is not None:
        return {name: getattr(stored, name) for name in _NOT_IN_VARIABLES}
    if given.get("bn_epsilon") is None:
        raise UsageError(
            f"{source.path}: neither {run_folder.RUN_JSON} nor {run_folder.NETWORK_JSON} lies beside it, so "
            f"its epsilon is not known; give --bn_epsilon ({BN_EPSILON} unless its run had another), and "
            "--preprocessing if that was not torch"
        )
    return {}


def wanted(config: Config) -> Dict[str, Shape]:
    """The variables of the network of a configuration, without building it."""
    model = config.model
    variant = VARIANTS[model.model].with_stem(model.stem)
    if model.growth_rate is not None:
        variant = variant.with_growth_rate(model.growth_rate)
    return variables(variant, model.num_classes or variant.num_classes, model.bn_size)


def check_restored(source: Source, config: Config) -> None:
    """Refuses weights of which a run that starts from them would lack some.

    Raises:
        UsageError: naming what is missing, and the remedy.
    """
    found = weights.match(source, wanted(config))
    excluded = tuple(config.run.restore_exclude)
    missing = [name for name in found.missing if not name.startswith(excluded)]
    weights.require(
        source, found, missing,
        "give the --model settings that the file is of, or leave such variables out with --restore_exclude "
        "PREFIX",
    )  # fmt: skip
