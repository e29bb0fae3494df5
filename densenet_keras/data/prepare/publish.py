"""From whole shards to a data set: what was left out, what is there twice, then every file in its place."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from densenet_keras import __version__, files
from densenet_keras.data import classes, record_index
from densenet_keras.data.prepare.duplicates import Duplicates
from densenet_keras.data.prepare.listing import SPLITS, Listing
from densenet_keras.data.prepare.options import PrepareOptions
from densenet_keras.data.prepare.plan import FORMAT_VERSION, Plan
from densenet_keras.data.prepare.shards import CHANGES, FIRST_LABEL
from densenet_keras.data.prepare.workspace import Account, Workspace
from densenet_keras.errors import RunError

DATASET_JSON, LEFT_OUT, DUPLICATES = "dataset.json", "left_out.csv", "duplicates.csv"
# Not part of the data set: where it lies, how fast it was made, how much was put up with.
_NOT_STORED = ("data_dir", "data_threads", "max_left_out_share")
_EXAMPLES = 5  # duplicates that are named in the outcome; a file lists the others


class Outcome(NamedTuple):
    """What was published."""

    pictures: Dict[str, int]  # by split
    left_out: int
    left_out_file: str
    changes: Dict[str, int]  # by name, see CHANGES
    duplicates: Dict[str, int]  # groups by kind, of those that do harm
    examples: List[List[List[str]]]  # paths of the first few groups of each kind
    duplicates_file: str
    without_pictures: List[str]  # split/class


def publish(plan: Plan, listing: Listing, options: PrepareOptions, workspace: Workspace) -> Outcome:
    """Puts the data set together; dataset.json comes last, so that a set with one is whole.

    Raises:
        RunError: too many pictures were left out, or a shard has none.
        OSError: a file cannot be written.
    """
    accounts = [workspace.account(shard.name) for shard in plan.shards]
    data_dir = workspace.data_dir
    left_out = {row: reason for account in accounts for row, reason in account.left_out.items()}
    _write_csv(os.path.join(data_dir, LEFT_OUT), ("path", "split", "class", "reason"),
               ((*_place(listing, row), left_out[row]) for row in sorted(left_out)))  # fmt: skip
    _check_left_out(plan, listing, options, left_out, data_dir)
    _check_no_shard_is_empty(plan, accounts)
    rows = np.concatenate([account.columns["row"] for account in accounts])
    duplicates = Duplicates.find(rows, np.concatenate([account.digests for account in accounts]), listing)
    _write_csv(os.path.join(data_dir, DUPLICATES), ("group", "path", "split", "class"),
               ((group, *_place(listing, row)) for group, row in duplicates.rows()))  # fmt: skip
    with files.whole_file(os.path.join(data_dir, classes.LABELS_FILE)) as file:
        file.write(classes.labels_text(plan.texts, FIRST_LABEL))
    for shard in plan.shards:
        workspace.publish(shard.name)
    files.sync_folder(data_dir)
    _write_indexes(plan, accounts, data_dir)
    counts = _counts(listing, rows)
    description = {
        **_described(plan, listing, options, counts), "changes": _changes(accounts),
        "left_out": len(left_out), "duplicates": duplicates.summary(), "shards": _shards(plan, accounts),
    }  # fmt: skip
    files.write_json(os.path.join(data_dir, DATASET_JSON), description)
    workspace.remove()
    return _outcome(description, duplicates, counts, listing, data_dir)


def _outcome(
    description: Dict[str, Any], duplicates: Duplicates, counts: np.ndarray, listing: Listing, data_dir: str
) -> Outcome:
    harmful = duplicates.harmful()
    return Outcome(
        description["pictures"],
        description["left_out"],
        os.path.join(data_dir, LEFT_OUT),
        description["changes"],
        {kind: len(groups) for kind, groups in harmful.items()},
        [[[_place(listing, row)[0] for row in group] for group in groups[:_EXAMPLES]]
         for groups in harmful.values()],
        os.path.join(data_dir, DUPLICATES),
        [f"{SPLITS[split]}/{listing.classes[label]}" for split, label in np.argwhere(counts == 0)],
    )  # fmt: skip


def _place(listing: Listing, row: int) -> Tuple[str, str, str]:
    return os.fsdecode(listing.name(row)), SPLITS[listing.split[row]], listing.classes[listing.label[row]]


def _write_csv(path: str, header: Sequence[str], rows: Any) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with files.whole_file(path, "wb") as file:  # names come as the file system has them, text or not
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))


def _check_left_out(
    plan: Plan, listing: Listing, options: PrepareOptions, left_out: Dict[int, str], data_dir: str
) -> None:
    share = len(left_out) / plan.pictures
    if share <= options.max_left_out_share:
        return
    row = min(left_out)
    raise RunError(
        f"{len(left_out)} of {plan.pictures} pictures ({share:.1%}) cannot be used, more than "
        f"--max_left_out_share {options.max_left_out_share}, such as {os.fsdecode(listing.name(row))}: "
        f"{left_out[row]}. Nothing is published; {os.path.join(data_dir, LEFT_OUT)} lists them all. Mend or "
        "remove them, or allow more: what is done already is kept for the same command"
    )


def _check_no_shard_is_empty(plan: Plan, accounts: List[Account]) -> None:
    for shard, account in zip(plan.shards, accounts):
        if not len(account.digests):
            name = SPLITS[shard.split]
            fewer = max(1, len(plan.shards_of(shard.split)) // 2)
            raise RunError(
                f"shard {shard.name} has no picture, because all meant for it were left out; give "
                f"--{name}_shards {fewer}"
            )


def _counts(listing: Listing, rows: np.ndarray) -> np.ndarray:
    """Pictures written, [splits, classes]."""
    counts = np.zeros((len(SPLITS), len(listing.classes)), np.int64)
    np.add.at(counts, (listing.split[rows], listing.label[rows]), 1)
    return counts


def _changes(accounts: List[Account]) -> Dict[str, int]:
    return {
        name: sum(int((account.columns["changes"] >> bit & 1).sum()) for account in accounts)
        for bit, name in enumerate(CHANGES)
    }


def _write_indexes(plan: Plan, accounts: List[Account], data_dir: str) -> None:
    """The index that a first scan of the shards would build."""
    for number, name in enumerate(SPLITS):
        own = [account for shard, account in zip(plan.shards, accounts) if shard.split == number]
        columns = {
            column: np.concatenate([account.columns[column] for account in own]).astype(kind)
            for column, kind in record_index.COLUMNS.items()
            if column not in ("shard", "checksum")
        }
        sizes = [len(account.digests) for account in own]
        columns["shard"] = np.repeat(np.arange(len(own), dtype=np.int32), sizes)
        paths = [os.path.join(data_dir, shard.name) for shard in plan.shards_of(number)]
        record_index.store(data_dir, name, paths, columns)


def _described(plan: Plan, listing: Listing, options: PrepareOptions, counts: np.ndarray) -> Dict[str, Any]:
    """What dataset.json says of pictures, classes, settings and versions; the same for the same command."""
    import tensorflow as tf

    settings = {name: value for name, value in dataclasses.asdict(options).items() if name not in _NOT_STORED}
    by_class = [
        {"label": FIRST_LABEL + number, "name": plan.texts[number], "folder": folder,
         **{split: int(counts[place, number]) for place, split in enumerate(SPLITS)}}
        for number, folder in enumerate(listing.classes)
    ]  # fmt: skip
    return {
        "pictures": {name: int(counts[number].sum()) for number, name in enumerate(SPLITS)},
        "classes": by_class,
        "first_label": FIRST_LABEL,
        "settings": settings,
        "exif_rotation": "applied: pictures are stored upright, without a note",
        "fingerprint": plan.fingerprint,
        "versions": {
            "format": FORMAT_VERSION, "densenet_keras": __version__, "tensorflow": tf.__version__,
            "numpy": np.__version__,
        },
    }  # fmt: skip


def _shards(plan: Plan, accounts: List[Account]) -> List[Dict[str, Any]]:
    return [
        {"file": shard.name, "pictures": len(account.digests), "sha256": account.sha256}
        for shard, account in zip(plan.shards, accounts)
    ]
