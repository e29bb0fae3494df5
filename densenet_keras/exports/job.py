"""An export from its checkpoint to its folder: written aside, compared, then given its name."""

from __future__ import annotations

import os
from typing import NamedTuple, Optional, Tuple

from densenet_keras import files
from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import run_folder
from densenet_keras.checkpoints.model import load_model, stored_network
from densenet_keras.data import classes
from densenet_keras.exports import formats, pictures, readme
from densenet_keras.exports.base import CLASSES_FILE, Pictures, Subject, write_class_names
from densenet_keras.exports.comparison import Difference, compare
from densenet_keras.exports.formats import FORMATS, NO_GRAPH, OF_NORMALISED, Options
from densenet_keras.exports.inference import Frozen, freeze, reference_logits
from densenet_keras.exports.read_back import read_back
from densenet_keras.network.variants import VARIANTS
from densenet_keras.settings.config import Config


class Job(NamedTuple):
    """What is wanted.

    Attributes:
        restore: run folder or checkpoint.
        format: name of the format.
        output: folder to write.
        fold_bn: fold batch normalisation, in formats that hold a graph.
        options: of single formats.
        command: that asks for this, for the README of the folder.
    """

    restore: str
    format: str
    output: str
    fold_bn: bool
    options: Options
    command: str


def export(job: Job) -> None:
    """Writes `job.output`, whole or not at all, and says what it does.

    Raises:
        UsageError: there is no such checkpoint.
        RunError: the export's logits are not the checkpoint's, or it cannot be read back.
        OSError: the folder cannot be written.
    """
    config = stored_network(checkpoint_files.resolve(job.restore))
    size = config.model.image_size or VARIANTS[config.model.model].image_size
    shown = pictures.make(size, config.model)
    with files.whole_folder(job.output) as folder:
        subject = _subject(job, config)
        formats.find(job.format).write(folder, subject)
        if subject.class_names is not None and not os.path.exists(os.path.join(folder, "assets")):
            write_class_names(os.path.join(folder, CLASSES_FILE), subject.class_names)
        compared = _compared(job, folder, subject, shown)
        with open(os.path.join(folder, readme.FILE), "w", encoding="utf-8") as file:
            file.write(readme.text(folder, job.format, subject, job.command, compared.words))
    print(f"exported to {job.output}; {readme.FILE} there says how to load it")


def _subject(job: Job, config: Config) -> Subject:
    model, graph = load_model(job.restore), FORMATS[job.format].graph
    classes_, size = model.output_shape[1], model.input_shape[1]
    print(f"{config.model.model}, step {model.step} of {model.checkpoint}: {classes_} classes, {size} pixels")
    frozen: Optional[Frozen] = None
    if graph != NO_GRAPH:
        frozen = freeze(model, config.model, job.fold_bn, normalised=graph == OF_NORMALISED)
        done = "folded" if job.fold_bn else "not folded"
        print(f"batch normalisation {done}: {frozen.nodes_before} nodes before, {frozen.nodes} after")
    return Subject(model, config.model, frozen, class_names(model.checkpoint, config), job.options)


def class_names(checkpoint: str, config: Config) -> Optional[Tuple[str, ...]]:
    """The names of the classes, from the run's labels.txt, its manifest, or the data's labels.txt."""
    beside = run_folder.folder_of(checkpoint)
    recorded = run_folder.of_checkpoint(checkpoint, "class_names")
    if recorded and not os.path.isfile(os.path.join(beside, classes.LABELS_FILE)):
        print(f"class names from the manifest of {checkpoint}")
        return tuple(recorded)
    for folder in (beside, config.data.data_dir):
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


def _compared(job: Job, folder: str, subject: Subject, shown: Pictures) -> Difference:
    print("reading it back in a fresh process")
    found = read_back(job.format, folder, shown)
    difference = compare(reference_logits(subject.model, shown.normalised), found, job.options.precision)
    print(f"compared with the checkpoint on {len(shown.pixels)} pictures: {difference.words}")
    return difference
