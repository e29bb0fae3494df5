"""Checkpoints as files: which there are, which is the newest, how one comes to exist. No TensorFlow.

A TensorFlow V2 checkpoint PREFIX is PREFIX.index and PREFIX.data-00000-of-0000N; ours has a manifest
beside them. Its index is published last and deleted first, so a checkpoint whose index exists was once
whole, manifest and all.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from densenet_keras import files
from densenet_keras.checkpoints import manifest
from densenet_keras.errors import RunError, UsageError

BASENAME = "model.ckpt"
STATE_FILE = "checkpoint"
SET_ASIDE = "damaged-"  # before the names of files that are kept, but are no checkpoint any more
ENDINGS = (".index", ".data-00000-of-00001")  # of the files of a checkpoint that this program writes
_TEMPORARY = "saving.tmp"

_STEP = re.compile(r"-(\d+)$")
_DATA = re.compile(r"\.data-(\d{5})-of-(\d{5})$")

_log = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """A whole checkpoint."""

    path: str  # prefix of its files
    step: int  # from its name; -1 if the name has none
    modified_seconds: float  # since 1970


def missing_files(path: str) -> List[str]:
    """The files that checkpoint `path` lacks; [] if it is whole."""
    return _Listing(os.path.dirname(path)).missing(path)


class _Listing:
    """The names that a folder holds at one moment: it is read once, for any number of checkpoints."""

    def __init__(self, folder: str) -> None:
        names = _listdir(folder or ".")
        self._present = frozenset(names)
        self._shards: Dict[str, int] = {}  # of checkpoints with data files, by name
        for found in filter(None, map(_DATA.search, names)):
            name = found.string[: found.start()]
            self._shards[name] = max(self._shards.get(name, 1), int(found.group(2)))

    def missing(self, path: str) -> List[str]:
        """See `missing_files`; `path` lies in this folder."""
        name = os.path.basename(path)
        shards = self._shards.get(name, 1)
        endings = [".index", *(f".data-{shard:05d}-of-{shards:05d}" for shard in range(shards))]
        return [path + ending for ending in endings if name + ending not in self._present]


def files_of(path: str) -> List[str]:
    """The files of checkpoint `path`, its index first."""
    folder, name = os.path.split(path)
    return [path + ".index", *(os.path.join(folder, file) for file in _data_files(folder, name))]


def prefix_of(path: str) -> str:
    """The prefix of the checkpoint that `path` names by its prefix or one of its files."""
    return _DATA.sub("", re.sub(r"\.(index|meta|manifest\.json)$", "", path))


def newest(log_dir: str) -> Optional[Tuple[str, int]]:
    """Path and step of the newest whole checkpoint that a run left in `log_dir`; None if there is none.

    Its files exist; whether they can be read is `checkpoint.find_resumable`'s matter.
    """
    found = _in_folder(log_dir, own=True, warn=False)
    return (found[-1].path, found[-1].step) if found else None


def of_run(log_dir: str) -> List[Checkpoint]:
    """The whole checkpoints that a run left in `log_dir`, by step; incomplete ones give a warning."""
    return _in_folder(log_dir, own=True)


def set_aside(path: str) -> None:
    """Takes checkpoint `path` out of its run, under another name, so that it does not count as the newest."""
    folder, name = os.path.split(path)
    for file in [name + ".index", name + manifest.ENDING, *_data_files(folder, name)]:
        with contextlib.suppress(FileNotFoundError):
            os.replace(os.path.join(folder, file), os.path.join(folder, SET_ASIDE + file))


def list_checkpoints(path: str) -> List[Checkpoint]:
    """The whole checkpoints in folder `path`, by step; or the one checkpoint `path` names.

    A checkpoint is named by its prefix or one of its files (also the .meta that tf.train.Saver adds). In a
    folder, those of a training run are taken (model.ckpt-STEP); if there are none, all.

    Raises:
        UsageError: there is none.
    """
    if not os.path.isdir(path):
        return [_named(path)]
    found = _of_folder(path)
    if not found:
        raise UsageError(f"folder {path} holds no checkpoint, no pair of NAME.index and NAME.data-*")
    return found


def holds_checkpoints(folder: str) -> bool:
    """Whether `list_checkpoints` finds any in `folder`."""
    return bool(_of_folder(folder))


def _of_folder(path: str) -> List[Checkpoint]:
    return _in_folder(path, own=True) or _in_folder(path, own=False)


def resolve(path: str) -> str:
    """The prefix of the checkpoint that `path` names; in a folder, of the newest.

    One whose files have not the sizes that its manifest tells is passed over, unless there is no other.

    Raises:
        UsageError: there is none, or it lacks files.
    """
    found = list_checkpoints(path)
    for each in reversed(found[1:]):
        wrong = _wrong_sizes(each.path)
        if wrong is None:
            return each.path
        _log.warning("checkpoint %s is passed over: %s", each.path, wrong)
    return found[0].path


def _wrong_sizes(prefix: str) -> Optional[str]:
    with contextlib.suppress(OSError):  # what cannot be read is for its reader to say
        marks = manifest.readable(prefix)
        return manifest.difference(prefix, marks, contents=False) if marks else None
    return None


def _named(path: str) -> Checkpoint:
    folder, name = os.path.split(path)
    if name == STATE_FILE and os.path.isfile(path):
        raise UsageError(
            f"{path} is the list of the checkpoints in its folder, not a checkpoint; give the folder, "
            f"{folder or '.'}, for its newest, or a prefix such as {os.path.join(folder, BASENAME)}-100"
        )
    prefix = prefix_of(path)
    missing = missing_files(prefix)
    if missing:
        hint = "give a prefix such as model.ckpt-100, one of its files, or a folder"
        if os.path.isfile(prefix) and len(missing) > 1:
            raise UsageError(
                f"{prefix} is a file of its own, not a checkpoint of TensorFlow's V2 format; if it holds "
                "weights of another program, python -m densenet_keras import makes a run folder of it"
            )
        if os.path.exists(prefix) or len(missing) == 1:
            hint = "the checkpoint is incomplete, or not of TensorFlow's V2 format; give another"
        raise UsageError(f"checkpoint {prefix}: file {missing[0]} does not exist; {hint}")
    return _checkpoint(prefix)


def prefixes_in(folder: str) -> List[str]:
    """The prefixes of all checkpoints in `folder`, whole or not, but for those set aside."""
    names = [name for name in _listdir(folder) if name.endswith(".index")]
    known = [name for name in names if not name.startswith((_TEMPORARY, SET_ASIDE))]
    return [os.path.join(folder, prefix_of(name)) for name in known]


def step_of(prefix: str) -> int:
    """The step in the name of a checkpoint; -1 if there is none."""
    step = _STEP.search(prefix)
    return int(step.group(1)) if step else -1


def _in_folder(folder: str, own: bool, warn: bool = True) -> List[Checkpoint]:
    found = []
    prefixes = prefixes_in(folder)
    listing = _Listing(folder)  # after the indexes, which are published last
    for prefix in prefixes:
        if own and not re.match(re.escape(BASENAME) + r"-\d+$", os.path.basename(prefix)):
            continue
        missing = listing.missing(prefix)
        if missing and warn:
            _log.warning("checkpoint %s is passed over: %s does not exist", prefix, missing[0])
        if missing:
            continue
        with contextlib.suppress(FileNotFoundError):  # deleted at this moment by the run that goes on
            found.append(_checkpoint(prefix))
    return sorted(found, key=lambda checkpoint: (checkpoint.step, checkpoint.path))


def _checkpoint(prefix: str) -> Checkpoint:
    return Checkpoint(prefix, step_of(prefix), os.path.getmtime(prefix + ".index"))


def _listdir(folder: str) -> List[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RunError(f"folder {folder} cannot be read: {error.strerror}; nothing was changed") from error


@contextlib.contextmanager
def publishing(path: str) -> Iterator[str]:
    """A temporary prefix to write a checkpoint of one data file to; after the body it is at `path`.

    A manifest that the body has put beside it comes along.

    If the process dies at any point, the checkpoint is either whole or does not exist, and others are
    untouched.
    """
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    _remove_leftovers(folder)
    temporary = os.path.join(folder, f"{_TEMPORARY}-{name}")
    yield temporary
    index, data = ENDINGS
    endings = [data, index]  # in the order of publishing
    if os.path.exists(temporary + manifest.ENDING):
        endings.insert(1, manifest.ENDING)
    for ending in endings:
        files.sync_file(temporary + ending)
    # Where the same step is saved again, the old index must not meet the new data.
    for ending in (index, manifest.ENDING):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path + ending)
            files.sync_folder(folder)
    for ending in endings:
        if ending == index:
            files.sync_folder(folder)
        os.replace(temporary + ending, path + ending)
    files.sync_folder(folder)


def write_state(folder: str, keep: int, spare: Optional[int] = None) -> None:
    """Points TensorFlow's tools to the newest checkpoint, then deletes all but the newest `keep`.

    Args:
        spare: step of one that stays as well.
    """
    found = _in_folder(folder, own=True)
    first_kept = max(0, len(found) - keep) if keep else 0
    kept = [each for number, each in enumerate(found) if number >= first_kept or each.step == spare]
    names = [os.path.basename(checkpoint.path) for checkpoint in kept]
    lines = [f'model_checkpoint_path: "{names[-1]}"\n']
    lines += [f'all_model_checkpoint_paths: "{name}"\n' for name in names]
    with files.whole_file(os.path.join(folder, STATE_FILE)) as file:
        file.writelines(lines)
    for checkpoint in found[:first_kept]:
        if checkpoint.step != spare:
            delete(checkpoint.path)


def delete(prefix: str) -> None:
    """Deletes a checkpoint, its index first: what remains if this is cut short is none."""
    folder, name = os.path.split(prefix)
    for file in [name + ".index", name + manifest.ENDING, *_data_files(folder, name)]:
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, file))


def _data_files(folder: str, name: str) -> List[str]:
    return [other for other in _listdir(folder) if _DATA.search(other) and _DATA.sub("", other) == name]


def _remove_leftovers(folder: str) -> None:
    """Removes what saves and deletions that were killed half-way left in `folder`."""
    names = _listdir(folder)
    present = frozenset(names)
    for name in names:
        prefix = prefix_of(name)
        orphan = (
            name.startswith(BASENAME + "-") and prefix + ".index" not in present
            and (_DATA.search(name) or name == prefix + manifest.ENDING)
        )  # fmt: skip
        if orphan or name.startswith(_TEMPORARY):
            os.remove(os.path.join(folder, name))
