"""`python -m densenet_keras export`: a trained network as a file of another program."""

from __future__ import annotations

import dataclasses
import os
import shlex
from dataclasses import dataclass
from typing import Optional, Tuple

import tensorflow as tf

from densenet_keras import files
from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import run_folder
from densenet_keras.checkpoints.model import load_model, stored_network
from densenet_keras.data import classes
from densenet_keras.errors import EXIT_DONE, RunError, UsageError
from densenet_keras.exports import formats, pictures, readme
from densenet_keras.exports.base import (
    CLASSES_FILE,
    FLOAT16,
    FLOAT32,
    NO_GRAPH,
    OF_NORMALISED,
    Format,
    Options,
    Subject,
    write_class_names,
)
from densenet_keras.exports.comparison import Difference, compare
from densenet_keras.exports.inference import Frozen, freeze, reference_logits
from densenet_keras.exports.onnx_file import LEAST_OPSET
from densenet_keras.exports.read_back import read_back
from densenet_keras.settings.config import Config
from densenet_keras.settings.rules import refuse, shown
from densenet_keras.settings.setting import at_least, flag, matches

EXAMPLE = "--restore run --format savedmodel --output densenet_savedmodel"


@dataclass(frozen=True)
class Settings:
    """Export: a trained network for other programs.

    Writes a checkpoint's network in another format, reads it back in a fresh process and compares its
    logits with the checkpoint's on a few pictures before it says that it is done; otherwise it ends with 1
    and leaves nothing.
    """

    restore: str = flag("", "run folder, whose newest checkpoint is taken, or checkpoint", metavar="RUN")
    format: str = flag(
        "savedmodel", "savedmodel (TensorFlow, two signatures), pb (frozen TensorFlow graph), tflite, onnx "
        "(needs tf2onnx and onnxruntime), h5 (Keras), npz (weights alone), om (what Ascend's ATC needs)",
        choices=tuple(formats.MODULES),
    )
    output: str = flag("", "folder to write; it may not exist yet, unless it is empty", metavar="DIR")
    fold_bn: bool = flag(
        True, "fold batch normalisation: into the convolution before it where there is one, else a multiply "
        "and an add",
    )
    precision: str = flag(FLOAT32, "of the weights in a TFLite file", choices=(FLOAT32, FLOAT16))
    opset: int = flag(Options().opset, "of an ONNX file", rule=at_least(LEAST_OPSET))
    soc_version: str = flag(
        "", "chip that an OM file is for, as `npu-smi info` names it behind Ascend, such as Ascend310P3",
        rule=matches(r"(Ascend\w+)?", "must be Ascend and the chip's name, such as Ascend310P3"),
    )
    batch_size: int = flag(1, "pictures in one run of an OM file", rule=at_least(1))


def run(settings: Settings) -> int:
    """Exports; returns the exit code."""
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    format = _checked(settings)
    config = stored_network(checkpoint_files.resolve(settings.restore))
    try:
        with files.whole_folder(settings.output) as folder:
            subject = _subject(settings, format, config)
            format.write(folder, subject)
            _write_class_names(folder, subject)
            difference = _compared(settings, folder, subject)
            with open(os.path.join(folder, readme.FILE), "w", encoding="utf-8") as file:
                file.write(readme.text(folder, format, subject, _command(settings), difference.words))
    except OSError as error:
        raise RunError(f"--output {settings.output} could not be written: {error.strerror}") from error
    print(f"exported to {settings.output}; {readme.FILE} there says how to load it")
    return EXIT_DONE


def _checked(settings: Settings) -> Format:
    """The format asked for.

    Raises:
        UsageError: a setting is missing, has no effect on it, or the folder is there already.
    """
    for name in ("restore", "output"):
        if not getattr(settings, name):
            raise UsageError(f"--{name} is missing; python -m densenet_keras export --help shows an example")
    if os.path.isfile(settings.output) or (os.path.isdir(settings.output) and os.listdir(settings.output)):
        raise refuse("output", settings.output, "exists already; remove it, or choose another folder")
    default = Settings()
    belongs = {"precision": "tflite", "opset": "onnx", "soc_version": "om", "batch_size": "om"}
    for name, only in belongs.items():
        value = getattr(settings, name)
        if settings.format != only and value != getattr(default, name):
            raise refuse(name, value, f"has effect only with --format {only}; leave it out")
    if settings.format == "om" and not settings.soc_version:
        raise UsageError(
            "--soc_version is missing: --format om needs the chip, such as --soc_version Ascend310P3; "
            "`npu-smi info` names it"
        )
    format = formats.find(settings.format)
    if format.graph == NO_GRAPH and not settings.fold_bn:
        raise refuse("fold_bn", False, f"--format {settings.format} holds what was trained; leave it out")
    missing = formats.missing_packages(format)
    if missing:
        needs = f"needs {' and '.join(missing)}; pip install {' '.join(missing)}"
        raise refuse("format", settings.format, needs)
    return format


def _subject(settings: Settings, format: Format, config: Config) -> Subject:
    model = load_model(settings.restore)
    classes_, size = model.output_shape[1], model.input_shape[1]
    print(f"{config.model.model}, step {model.step} of {model.checkpoint}: {classes_} classes, {size} pixels")
    frozen: Optional[Frozen] = None
    if format.graph != NO_GRAPH:
        frozen = freeze(model, config.model, settings.fold_bn, normalised=format.graph == OF_NORMALISED)
        done = "folded" if settings.fold_bn else "not folded"
        print(f"batch normalisation {done}: {frozen.nodes_before} nodes before, {frozen.nodes} after")
    options = Options(settings.precision, settings.opset, settings.soc_version, settings.batch_size)
    return Subject(model, config.model, frozen, class_names(model.checkpoint, config), options)


def class_names(checkpoint: str, config: Config) -> Optional[Tuple[str, ...]]:
    """The names of the classes, from the labels.txt of the run, or of its data."""
    for folder in (run_folder.folder_of(checkpoint), config.data.data_dir):
        path = os.path.join(folder, classes.LABELS_FILE)
        if not os.path.isfile(path):
            continue
        offset, count = config.data.label_offset, config.model.num_classes or 0
        named = classes.read_labels(path, offset)
        names = [named.get(label) for label in range(offset, offset + count)]
        known = tuple(name for name in names if name is not None)
        if names and len(known) == len(names):
            print(f"class names from {path}")
            return known
        print(f"no class names: {path} names {len(known)} of the network's {count} classes")
        return None
    return None


def _write_class_names(folder: str, subject: Subject) -> None:
    inside = os.path.join(folder, "assets", CLASSES_FILE)
    if subject.class_names is not None and not os.path.exists(inside):
        write_class_names(os.path.join(folder, CLASSES_FILE), subject.class_names)


def _compared(settings: Settings, folder: str, subject: Subject) -> Difference:
    print("reading it back in a fresh process")
    made = pictures.make(subject.image_size, subject.network)
    found = read_back(settings.format, folder, made)
    difference = compare(reference_logits(subject.model, made.normalised), found, settings.precision)
    print(f"compared with the checkpoint on {len(made.pixels)} pictures: {difference.words}")
    return difference


def _command(settings: Settings) -> str:
    """The command that these settings are."""
    default, words = Settings(), ["python", "-m", "densenet_keras", "export"]
    for field in dataclasses.fields(Settings):
        value = getattr(settings, field.name)
        if value != getattr(default, field.name) or field.name == "format":
            words += [f"--{field.name}", shlex.quote(shown(value))]
    return " ".join(words)
