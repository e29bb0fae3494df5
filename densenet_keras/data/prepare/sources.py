"""What kind of source PICTURES is, recognised by looking at it."""

from __future__ import annotations

import os
import re
from typing import Dict, List

from densenet_keras.data.prepare import folders, imagenet, table
from densenet_keras.data.prepare.listing import Listing
from densenet_keras.errors import UsageError

_SYNSET = re.compile(r"n\d{8}")


def look(pictures: str, validation_labels: str) -> Listing:
    """The pictures of the source, none of them read yet.

    Raises:
        UsageError: it does not exist, is of no known kind, or names fewer than two classes.
    """
    if os.path.isdir(pictures):
        if os.path.exists(os.path.join(pictures, imagenet.TRAIN_TAR)):
            return imagenet.list_tars(pictures, validation_labels)
        return _folders(pictures, validation_labels)
    if not os.path.exists(pictures):
        raise UsageError(f"{pictures} does not exist; give a folder of pictures or a CSV file")
    if pictures.lower().endswith(".csv"):
        return table.list_table(pictures)
    if os.path.basename(pictures) in (imagenet.TRAIN_TAR, imagenet.VALIDATION_TAR):
        return imagenet.list_tars(os.path.dirname(pictures) or ".", validation_labels)
    raise UsageError(
        f"{pictures} is neither a folder nor a CSV file (NAME.csv); give a folder with a folder of pictures "
        f"for each class, the folder of {imagenet.TRAIN_TAR}, or a CSV file"
    )


def _folders(root: str, validation_labels: str) -> Listing:
    parts, notes = folders.parts_of(root)
    flat = [part for part in parts[1:] if not folders.subfolders(os.path.join(root, part.folder))]
    labels: Dict[str, str] = {}
    for part in flat:
        path = validation_labels or imagenet.label_file_in(root)
        if path is None:
            raise UsageError(imagenet.LABELS_MISSING.format(tar=os.path.join(root, part.folder)))
        names = [os.path.basename(os.fsdecode(name)) for name, _ in folders.files_below(root, part.folder)]
        stems = sorted(os.path.splitext(name)[0] for name in names)
        labels.update(imagenet.read_validation_labels(path, stems))
    if validation_labels and not flat:
        raise UsageError(
            f"--validation_labels {validation_labels}: the validation pictures of {root} lie in class "
            "folders, which tell their classes; leave it out"
        )
    return folders.list_parts(root, parts, notes, labels)


def class_texts(listing: Listing, class_names: str) -> List[str]:
    """What each class is called: by the file `class_names`, else as its folder.

    Raises:
        UsageError: the file cannot be read or does not name every class.
    """
    if not class_names:
        return list(listing.classes)
    try:
        with open(class_names, encoding="utf-8-sig") as file:
            pairs = [re.split(r"\t|\s", line.strip(), maxsplit=1) for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UsageError(f"--class_names {class_names} cannot be read: {reason}") from error
    texts = {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
    missing = [name for name in listing.classes if name not in texts]
    if missing:
        raise UsageError(
            f"--class_names {class_names} has no line for {len(missing)} of {len(listing.classes)} classes, "
            f"such as {missing[0]}; a line is the name of the class folder, a blank, and what it stands for"
        )
    return [texts[name] for name in listing.classes]


def are_synsets(listing: Listing) -> bool:
    """Whether the classes are named by WordNet's synsets, as ImageNet's are."""
    return all(_SYNSET.fullmatch(name) for name in listing.classes)
