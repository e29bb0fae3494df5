"""`python -m densenet_keras export`: a trained network as a file of another program."""

from __future__ import annotations

import dataclasses
import os
import shlex
from dataclasses import dataclass

from densenet_keras.commands.tensorflow_import import import_tensorflow
from densenet_keras.errors import EXIT_DONE, RunError, UsageError
from densenet_keras.exports import formats
from densenet_keras.exports.formats import FLOAT16, FLOAT32, FORMATS, LEAST_OPSET, NO_GRAPH, Options
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
        "savedmodel",
        "savedmodel (TensorFlow, two signatures), pb (frozen TensorFlow graph), tflite, onnx "
        "(needs tf2onnx and onnxruntime), h5 (Keras), npz (weights alone), om (what Ascend's ATC needs)",
        choices=tuple(FORMATS),
    )
    output: str = flag("", "folder to write; it may not exist yet, unless it is empty", metavar="DIR")
    fold_bn: bool = flag(
        True,
        "fold batch normalisation: into the convolution before it where there is one, else a multiply "
        "and an add",
    )
    precision: str = flag(FLOAT32, "of the weights in a TFLite file", choices=(FLOAT32, FLOAT16))
    opset: int = flag(Options().opset, "of an ONNX file", rule=at_least(LEAST_OPSET))
    soc_version: str = flag(
        "",
        "chip that an OM file is for, as `npu-smi info` names it behind Ascend, such as Ascend310P3",
        rule=matches(r"(Ascend\w+)?", "must be Ascend and the chip's name, such as Ascend310P3"),
    )
    batch_size: int = flag(1, "pictures in one run of an OM file", rule=at_least(1))


def run(settings: Settings) -> int:
    """Exports; returns the exit code."""
    _check(settings)
    options = Options(settings.precision, settings.opset, settings.soc_version, settings.batch_size)
    import_tensorflow()
    import tensorflow as tf

    from densenet_keras.checkpoints import reader
    from densenet_keras.exports import job

    wanted = job.Job(
        settings.restore, settings.format, settings.output, settings.fold_bn, options, command_of(settings)
    )
    try:
        job.export(wanted)
    except (OSError, tf.errors.OpError) as error:
        why = getattr(error, "strerror", None) or reader.first_line(error)  # h5py's and TensorFlow's
        raise RunError(f"--output {settings.output} could not be written: {why}") from error
    return EXIT_DONE


def _check(settings: Settings) -> None:
    """Refuses what cannot be, before anything is loaded.

    Raises:
        UsageError: a setting is missing, has no effect on the format, or the folder is there already.
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
    if FORMATS[settings.format].graph == NO_GRAPH and not settings.fold_bn:
        raise refuse("fold_bn", False, f"--format {settings.format} holds what was trained; leave it out")
    missing = formats.missing_packages(settings.format)
    if missing:
        needs = f"needs {' and '.join(missing)}; pip install {' '.join(missing)}"
        raise refuse("format", settings.format, needs)


def command_of(settings: Settings) -> str:
    """The command that these settings are."""
    default, words = Settings(), ["python", "-m", "densenet_keras", "export"]
    for field in dataclasses.fields(Settings):
        value = getattr(settings, field.name)
        if value != getattr(default, field.name) or field.name == "format":
            words += [f"--{field.name}", shlex.quote(shown(value))]
    return " ".join(words)
