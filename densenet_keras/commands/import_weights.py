"""`python -m densenet_keras import`: a run folder from the weights of another program."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import run_folder
from densenet_keras.commands import foreign
from densenet_keras.commands.tensorflow_import import import_tensorflow
from densenet_keras.data import classes, imagenet_names
from densenet_keras.errors import EXIT_DONE, UsageError
from densenet_keras.network.preprocessing import PREPROCESSINGS
from densenet_keras.network.variables import CLASSIFIER
from densenet_keras.network.variants import VARIANTS
from densenet_keras.network.weights import source as weights
from densenet_keras.network.weights.names import OWN_LAYOUT
from densenet_keras.network.weights.source import Match, Source
from densenet_keras.network.weights.tensors import several
from densenet_keras.settings.config import MODELS, TRAIN, Config
from densenet_keras.settings.rules import refuse, shown, validate
from densenet_keras.settings.setting import Rule, at_least, flag

EXAMPLE = "densenet121.safetensors --log_dir imported"


@dataclass(frozen=True)
class Settings:
    """Import: weights of other programs.

    Writes a run folder that evaluate, finetune, predict and export take like any other: a checkpoint of step
    0, and a run.json with what the weights need of the network. FILE is recognised by what it holds: Keras
    Applications or a whole Keras model (.h5), torchvision or timm (.safetensors, or .npz of
    scripts/torch_to_npz.py), MindCV (.ckpt), a TensorFlow checkpoint of the original implementation or of
    this one. Nothing is unpickled.
    """

    file: str = flag("", "file of weights, or TensorFlow checkpoint", positional=True, metavar="FILE")
    log_dir: str = flag(
        "./model_imported",
        "run folder to write; it may hold no checkpoint yet",
        rule=Rule(lambda value: value != "", "must not be empty"),
        metavar="DIR",
    )
    model: Optional[str] = flag(None, "network to fill; default: the one that the file is of", choices=MODELS)
    num_classes: Optional[int] = flag(
        None,
        "classes; another number than the file's makes a new, random classifier; default: the file's",
        rule=at_least(2),
    )
    image_size: Optional[int] = flag(
        None,
        "height and width of the input in pixels; default: the network's",
        rule=Rule(lambda value: value >= 32, "must be at least 32"),
    )
    bn_epsilon: Optional[float] = flag(
        None,
        "epsilon of batch normalisation; default: that of the file's program (Torch, MindSpore 1e-5; "
        "Keras Applications 1.001e-5; the original 1e-3) or of the model saved whole",
        rule=Rule(lambda value: value > 0, "must be greater than 0"),
    )
    preprocessing: Optional[str] = flag(
        None,
        "what the network was trained to see of a picture; default: torch, for published weights; "
        "needed where the classes are not ImageNet's",
        choices=tuple(PREPROCESSINGS),
    )
    label_offset: Optional[int] = flag(
        None,
        "label of the first class in the records; default: 1, and 0 for 1,001 classes, whose first is "
        "the background",
        rule=at_least(0),
    )
    labels: str = flag(
        "",
        "text file with the names of the classes, a line each, for the run folder; default: ImageNet's, "
        "where the file has its classes, or those of the run that it is of",
        metavar="FILE",
    )
    allow_partial: bool = flag(
        False, "load what fits and leave the rest random, even where that is not the whole backbone"
    )
    seed: int = flag(0, "decides the initial values of what the file does not fill", rule=at_least(0))


def run(settings: Settings) -> int:
    """Imports the file; returns the exit code."""
    if checkpoint_files.newest(settings.log_dir) is not None:
        raise refuse("log_dir", settings.log_dir, "holds a run already; choose another folder")
    import_tensorflow()
    from densenet_keras.commands import imported_run  # loads TensorFlow, which --help does not need

    source = weights.open_source(foreign.located(settings.file))
    config = configuration(settings, source)
    found = compared(settings, source, config)
    names = _class_names(settings, source, config, found)
    values = weights.values(source, found)
    for line in summary(source, config, found):
        print(line)
    path = imported_run.write(config, values, _report(source, found), names)
    print(f"{path} is written; python evaluate.py --eval_dir {settings.log_dir} --data_dir DATA evaluates it")
    return EXIT_DONE


def configuration(settings: Settings, source: Source) -> Config:
    """What a run of the file's network is configured with.

    Raises:
        UsageError: the file cannot tell something that was not given either, or a setting is impossible.
    """
    given = {
        name: getattr(settings, name)
        for name in ("model", "num_classes", "image_size", "bn_epsilon", "preprocessing")
    }
    stored = run_folder.stored_config(source.path) if source.layout is OWN_LAYOUT else None
    base = Config.defaults(TRAIN) if stored is None else stored
    network = foreign.network_of(source, given)
    if settings.model is not None:  # that network, not the file's with another name
        network["growth_rate"] = VARIANTS[settings.model].growth_rate
    if "num_classes" not in network:
        raise UsageError(
            f"{source.path} holds no classifier; give --num_classes N for a new, random one, to be trained "
            "with finetune.py"
        )
    if network.get("image_size") is None:
        network["image_size"] = VARIANTS[network["model"]].image_size
    offset = settings.label_offset
    if offset is None:
        own = stored is not None and network["num_classes"] == stored.model.num_classes
        offset = base.data.label_offset if own else weights.label_offset_of(network["num_classes"])
    config = base.replace(
        **network, command=TRAIN, mode="train_and_evaluate", log_dir=settings.log_dir, label_offset=offset,
        seed=settings.seed, restore_path="",
    )  # fmt: skip
    validate(config)
    return config


def compared(settings: Settings, source: Source, config: Config) -> Match:
    """The file against the network, before anything is built.

    Raises:
        UsageError: it does not fill the backbone, and that was not allowed.
    """
    found = weights.match(source, foreign.wanted(config))
    if not any(not name.startswith(CLASSIFIER) for name in found.loaded) or not settings.allow_partial:
        remedy = "--allow_partial loads what there is and leaves the rest random"
        if settings.model is not None:
            remedy += "; or leave --model out"
        weights.require(source, found, found.missing_backbone, remedy)
    return found


def summary(source: Source, config: Config, found: Match) -> List[str]:
    """What was recognised, loaded, left out and missing, a line each; names in full stand in import.json."""
    model = config.model
    told = ("num_classes", "bn_epsilon", "bn_momentum", "stem", "preprocessing", "label_offset")
    lines = [
        f"{source.path}: {source.tensors.format}, names of {source.layout.name}",
        f"network: {model.model}, " + ", ".join(f"{name} {shown(config.get(name))}" for name in told),
        f"loaded: {len(found.loaded)} of {len(found.loaded) + len(found.missing)} variables",
    ]
    for title, names in (("left out of the file", found.left_out), ("missing, so random", found.missing)):
        reasons: Dict[str, List[str]] = defaultdict(list)
        for name, reason in names.items():
            reasons[reason].append(name)
        lines += [f"{title}: {several(each)} ({reason})" for reason, each in reasons.items()] or [
            f"{title}: nothing"
        ]
    return lines


def _class_names(settings: Settings, source: Source, config: Config, found: Match) -> Optional[List[str]]:
    """The names of the classes: given, those of the checkpoint's own run, or ImageNet's; None if unknown.

    Raises:
        UsageError: a file that was given does not name every class once.
    """
    count, offset = config.model.num_classes or 0, config.data.label_offset
    if settings.labels:
        named = classes.read_labels(settings.labels, offset)
        names = [named.get(label) for label in range(offset, offset + count)]
        if len(named) != count or None in names:
            raise refuse(
                "labels", settings.labels,
                f"names {len(named)} labels from {min(named)} on; the network has {count} classes, the first "
                f"of label {offset}",
            )  # fmt: skip
        return [name for name in names if name is not None]
    if f"{CLASSIFIER}bias" in found.missing:
        return None
    if source.layout is OWN_LAYOUT:
        return list(classes.of_checkpoint(source.path, offset) or ()) or None
    published = count in (imagenet_names.CLASSES, imagenet_names.CLASSES + 1)
    return list(imagenet_names.class_names(count)) if published else None


def _report(source: Source, found: Match) -> Dict[str, Any]:
    file = source.path if os.path.isfile(source.path) else source.path + ".index"
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        for part in iter(lambda: opened.read(1 << 20), b""):
            digest.update(part)
    return {
        "file": os.path.abspath(source.path),
        "sha256": digest.hexdigest(),
        "format": source.tensors.format,
        "names": source.layout.name,
        **found._asdict(),
    }
