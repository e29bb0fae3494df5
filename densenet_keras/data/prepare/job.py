"""The whole way from pictures to a data set, and what is said on it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import numpy as np

from densenet_keras.data.decoder import Decoder
from densenet_keras.data.prepare import plan as planning
from densenet_keras.data.prepare import shards, sources, workspace
from densenet_keras.data.prepare.listing import SPLITS, Listing
from densenet_keras.data.prepare.options import PrepareOptions
from densenet_keras.data.prepare.pictures import Judge
from densenet_keras.data.prepare.plan import Plan
from densenet_keras.data.prepare.publish import DATASET_JSON, Outcome, publish
from densenet_keras.data.prepare.shards import Progress, RecordMaker
from densenet_keras.data.prepare.workspace import Workspace
from densenet_keras.errors import RunError, UsageError
from densenet_keras.topology import available_cores

Say = Callable[[str], None]


class Job(NamedTuple):
    """Everything that is decided before the work starts."""

    options: PrepareOptions
    listing: Listing
    plan: Plan
    judge: Judge


def prepare(options: PrepareOptions, say: Say, progress: Optional[Progress] = None) -> Optional[Outcome]:
    """Writes the data set that `options` ask for; None if it is there already.

    Args:
        say: gets what was found, a line at a time, before the work starts.
        progress: called with (pictures done, pictures in all).

    Raises:
        UsageError: a source, folder or setting that cannot work.
        RunError: too much was left out, or the data set cannot be written.
    """
    _check_place(options)
    listing = sources.look(options.pictures, options.validation_labels)
    texts = sources.class_texts(listing, options.class_names)
    decoder = Decoder(options.quality)
    listing.open()
    try:
        judge = Judge(decoder, options.short_side)
        job = Job(options, listing, planning.make(listing, options, texts, judge), judge)
        if _is_done(job):
            say(f"{options.data_dir} holds this data set already; nothing to do")
            return None
        return _run(job, say, progress)
    finally:
        listing.close()
        decoder.close()


def _run(job: Job, say: Say, progress: Optional[Progress]) -> Outcome:
    options, listing, plan, judge = job
    place = Workspace(options.data_dir, plan)
    synsets = sources.are_synsets(listing)
    try:
        with place.locked():
            for line in _findings(job, place):
                say(line)
            maker = RecordMaker(listing, judge, plan.texts, synsets)
            threads = options.data_threads or available_cores()
            shards.write_missing(plan, maker, listing, place, threads, progress)
            return publish(plan, listing, options, place)
    except OSError as error:
        room = _size(max(0, plan.estimated_bytes - _whole_bytes(place)))
        remedy = (
            f"make room there (about {room} more) and give the same command again: it goes on behind the "
            "last whole shard"
        )
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            remedy = "choose a folder that you may write to"
        raise RunError(
            f"--data_dir {options.data_dir} cannot be written: {error.strerror or error}; {remedy}"
        ) from error


def _whole_bytes(place: Workspace) -> int:
    try:
        return place.whole_bytes()
    except OSError:
        return 0


def _check_place(options: PrepareOptions) -> None:
    """Refuses a folder that holds other data, or that lies among the pictures."""
    data_dir = os.path.realpath(options.data_dir)
    pictures = os.path.realpath(options.pictures)
    if os.path.isdir(pictures) and os.path.commonpath([data_dir, pictures]) == pictures:
        raise UsageError(
            f"--data_dir {options.data_dir} lies in {options.pictures}, so that it would be taken for a "
            "class; choose a folder beside it"
        )
    if os.path.exists(data_dir) and not os.path.isdir(data_dir):
        raise UsageError(f"--data_dir {options.data_dir} is not a folder; choose another name")
    others = workspace.other_data(data_dir)
    if others and DATASET_JSON not in others:
        raise UsageError(
            f"--data_dir {options.data_dir} holds other data already, such as {others[0]}; choose a folder "
            "of its own"
        )


def _is_done(job: Job) -> bool:
    """Whether the data set is there, finished and of these very settings."""
    data_dir = job.options.data_dir
    if DATASET_JSON not in workspace.other_data(data_dir):
        return False
    stored: Dict[str, Any] = {}
    path = os.path.join(data_dir, DATASET_JSON)
    with contextlib.suppress(OSError, ValueError, RecursionError), open(path) as file:
        stored = json.load(file)
    present = all(os.path.exists(os.path.join(data_dir, shard.name)) for shard in job.plan.shards)
    if stored.get("fingerprint") == job.plan.fingerprint and present:
        return True
    raise UsageError(
        f"--data_dir {data_dir} holds a data set of other pictures or settings; remove it, or choose another "
        "folder"
    )


def _findings(job: Job, place: Workspace) -> List[str]:
    """What was found, and what will be done; room is checked on the way."""
    options, listing, plan, _ = job
    names = ", ".join(listing.classes[:4]) + (", ..." if len(listing.classes) > 4 else "")
    lines = [
        f"{options.pictures}: {len(listing.classes)} classes ({names}), {len(listing):,} pictures, "
        f"{_size(int(listing.size.sum()))}",
        *(f"note: {note}" for note in listing.notes),
    ]
    for number, name in enumerate(SPLITS):
        counts = listing.counts(number)
        lines.append(
            f"{name}: {counts.sum():,} pictures in {_files(len(plan.shards_of(number)))}; "
            f"{_range(counts)} of a class"
        )
        missing = [listing.classes[place] for place in np.flatnonzero(counts == 0)]
        if missing:
            lines.append(f"note: {name} has no picture of {len(missing)} classes, such as {missing[0]}")
    whole_bytes = place.whole_bytes()
    whole = sum(place.is_whole(shard.name) for shard in plan.shards)
    free = shutil.disk_usage(options.data_dir).free
    needed = max(0, plan.estimated_bytes - whole_bytes)
    if whole:
        lines.append(f"{whole} of {len(plan.shards)} shards are there already: it goes on behind them")
    lines.append(f"room: about {_size(needed)} needed, {_size(free)} free in {options.data_dir}")
    if needed > free:
        raise UsageError(
            f"--data_dir {options.data_dir} has {_size(free)} free, but about {_size(needed)} are needed; "
            "make room, choose another folder, or shrink the pictures (--short_side 384)"
        )
    return lines


def _range(counts: np.ndarray) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _size(byte_count: int) -> str:
    """Bytes for people, in powers of ten as disks are sold."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if byte_count >= size:
            return f"{byte_count / size:.1f} {unit}"
    return f"{byte_count / 1e3:.1f} kB"
