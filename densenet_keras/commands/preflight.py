"""Everything about a run that can be refused before its first process starts; without TensorFlow."""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import sys
import time
from typing import Callable, Mapping, Optional, Sequence

from densenet_keras import backends, files
from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import run_folder
from densenet_keras.commands import foreign
from densenet_keras.data import classes, records
from densenet_keras.data.shards import find_shards
from densenet_keras.errors import UsageError
from densenet_keras.network.variants import VARIANTS
from densenet_keras.settings.config import EVALUATE, FINETUNE, TRAINING, Config, fields
from densenet_keras.settings.rules import RUN_FILES, RUN_FOLDERS, counted, refuse, shown
from densenet_keras.topology import Topology, available_cores, believed, in_place

# Settings that give a checkpoint its meaning: the run that wrote it and the one that continues agree.
CONTINUED = (
    "model", "num_classes", "image_size", "growth_rate", "bn_size", "bn_momentum", "bn_epsilon",
    "stem", "preprocessing",
)  # fmt: skip
# Settings that may change in the middle of a run, but hardly ever should unnoticed.
REPORTED = (
    "batch_size", "seed", "label_offset", "drop_rate", "dtype", "lr", "T_max", "lr_update", "warmup_epochs",
    "momentum", "use_nesterov", "label_smoothing", "weight_decay", "weight_decay_on", "rank_size",
    "intra_op_threads", "fast_cpu", "data_dir", "shards", "synthetic_data", "min_crop_area",
    "horizontal_flip", "backend", "statistics_average", "precision_mode", "loss_scale", "callbacks",
    "freeze", "bn_statistics", "head_lr_multiplier",
)  # fmt: skip
MOST_RANKS_A_CORE = 16  # each is a process of its own with some hundred megabytes
PROGRESS_SECONDS = 1.0
PROGRESS_SECONDS_IN_A_FILE = 30.0


def check(config: Config, environ: Mapping[str, str]) -> None:
    """Checks folders, checkpoints and data of a resolved configuration.

    Builds the record index of the data where there is none yet, with a progress line on stderr.

    Raises:
        UsageError: naming flag, value, rule and remedy.
    """
    told = believed(environ)
    if told:  # by each rank: one that was left over in a shell would wait for peers that nobody started
        sys.stderr.write(f"note: {told}\n")
    _check_image_size(config)
    _check_frozen_part(config)
    if not in_place(environ) and not config.device.dry_run:
        _check_cores(config)
    _check_backend_settings(config)
    _check_continued_run(config, environ)
    _check_checkpoints(config)
    if config.run.callbacks:
        _check_callbacks(config.run.callbacks)
    _check_outputs(config)
    _check_data(config, environ)  # last, because it may take long


def _check_cores(config: Config) -> None:
    ranks, cores = backends.host(config).local_ranks(config), available_cores()
    if ranks > MOST_RANKS_A_CORE * cores:
        raise refuse(
            "rank_size", config.device.rank_size,
            f"this machine has {counted(cores, 'core')}, and at most {MOST_RANKS_A_CORE} ranks can share "
            f"one; give --rank_size {cores}, or start the ranks on several hosts",
        )  # fmt: skip


def _check_frozen_part(config: Config) -> None:
    try:
        VARIANTS[config.model.model].frozen_parts(config.finetune.freeze)
    except ValueError as error:
        raise refuse("freeze", config.finetune.freeze, str(error)) from error


def _check_image_size(config: Config) -> None:
    variant = VARIANTS[config.model.model].with_stem(config.model.stem)
    size = config.model.image_size
    if size is not None and size < variant.smallest_image_size:
        raise refuse("image_size", size, f"{variant.name} needs at least {variant.smallest_image_size}")


def _check_backend_settings(config: Config) -> None:
    backends.host(config).check(config)
    for name, owner in backends.foreign_settings(config).items():
        if config.get(name) != fields()[name].default:
            raise refuse(
                name, config.get(name),
                f"has effect only with --backend {owner}, and this run uses "
                f"--backend {config.device.backend}; give --backend {owner} or leave --{name} out",
            )  # fmt: skip


def _check_continued_run(config: Config, environ: Mapping[str, str]) -> None:
    stored = run_folder.continued_run(config)
    if stored is None:
        return
    log_dir = config.run.log_dir
    for name in CONTINUED:
        if config.get(name) != stored.get(name):
            raise refuse(
                name, config.get(name),
                f"the run in --log_dir {log_dir}, which this command would continue, has "
                f"{shown(stored.get(name))}; give --{name} {shown(stored.get(name))} to continue it, or "
                "another --log_dir to start afresh",
            )  # fmt: skip
    _check_still_frozen(config, stored)
    changes = [
        f"{name} {shown(stored.get(name))} -> {shown(config.get(name))}"
        for name in REPORTED
        if config.get(name) != stored.get(name)
    ]
    if _global_batch(config) != _global_batch(stored):
        changes.append(
            f"global batch {_global_batch(stored)} -> {_global_batch(config)} images, so that the steps done "
            "count as another number of epochs"
        )
    if changes and _speaks(config, environ):
        print(f"note: continuing the run in {log_dir} with changes: {', '.join(changes)}", file=sys.stderr)


def _check_still_frozen(config: Config, stored: Config) -> None:
    """Refuses to thaw a part in the middle of a run: its checkpoints hold no momentum of what was frozen."""
    log_dir, freeze = config.run.log_dir, config.finetune.freeze
    frozen, kept = (
        VARIANTS[each.model.model].frozen_parts(each.finetune.freeze) for each in (stored, config)
    )
    if set(frozen) <= set(kept):
        return
    same = f"--freeze {stored.finetune.freeze}"
    finetunes = config.command == FINETUNE
    remedy = f"give {same} to continue it" if finetunes else f"continue it with finetune.py {same}"
    raise refuse(
        "freeze", freeze,
        f"the run in --log_dir {log_dir}, which this command would continue, has {stored.finetune.freeze}, "
        f"and a part that was frozen cannot start to learn within a run; {remedy}, or start from it with "
        f"--restore {log_dir} into another --log_dir",
    )  # fmt: skip


def _speaks(config: Config, environ: Mapping[str, str]) -> bool:
    """Whether this process tells what concerns all ranks: one of several that check the same does."""
    return not in_place(environ) or Topology.from_environment(environ, config).is_primary


def _global_batch(config: Config) -> int:
    return config.data.batch_size * config.device.rank_size


def _check_checkpoints(config: Config) -> None:
    if config.command == EVALUATE:
        if foreign.is_file(config.run.eval_dir):
            raise refuse(
                "eval_dir", config.run.eval_dir,
                "is a single file, not a checkpoint; if it holds weights of another program, python -m "
                "densenet_keras import makes a run folder of it",
            )  # fmt: skip
        _check_given(config, "eval_dir", "the run folder or the checkpoint to evaluate")
        _check_holds_checkpoints("eval_dir", config.run.eval_dir)
    if config.command in TRAINING and config.run.restore_path:
        weights = foreign.opened(config.run.restore_path)
        if weights is not None:
            foreign.check_restored(weights, config)
        else:
            _check_holds_checkpoints("restore_path", config.run.restore_path)
    if config.command == FINETUNE:
        source = os.path.realpath(run_folder.folder_of(config.run.restore_path))
        if source == os.path.realpath(config.run.log_dir):
            raise refuse(
                "log_dir", config.run.log_dir,
                "is the folder that --restore_path reads, so that run would be continued instead of a new "
                "one started; choose another --log_dir",
            )  # fmt: skip


def _check_given(config: Config, name: str, what: str) -> None:
    """Refuses a path that was left out, where the default of the original leads nowhere."""
    path = config.get(name)
    if path == fields()[name].default and not os.path.lexists(path):
        raise refuse(name, path, f"the default, does not exist here: --{name} is missing; give {what}")


def _check_holds_checkpoints(name: str, path: str) -> None:
    try:
        checkpoint_files.list_checkpoints(path)
    except UsageError as error:
        raise refuse(name, path, str(error)) from error


def _check_callbacks(callbacks: str) -> None:
    """Looks for the module's file without importing it: that may take TensorFlow, and is the ranks' part."""
    module = callbacks.partition(":")[0]
    places: Optional[Sequence[str]] = [*sys.path, os.getcwd()]
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        # By its last part: the finder looks up the parent of a dotted name among the imported modules.
        spec = importlib.machinery.PathFinder.find_spec(part, places) if places is not None else None
        if spec is None:
            raise refuse(
                "callbacks", callbacks,
                f"no module {name} in the current folder {os.getcwd()} or on PYTHONPATH; start the command "
                f"where {name.replace('.', '/')}.py can be found",
            )  # fmt: skip
        inside = spec.submodule_search_locations
        places = None if inside is None else list(inside)


def _check_data(config: Config, environ: Mapping[str, str]) -> None:
    if config.data.synthetic_data:
        return
    if config.device.dry_run and not os.path.isdir(config.data.data_dir):
        print(f"note: no data in {config.data.data_dir}; the dry run goes without", file=sys.stderr)
        return
    names = {"train": (records.TRAIN,), EVALUATE: (records.VALIDATION,)}.get(
        config.run.mode, (records.TRAIN, records.VALIDATION)
    )
    _check_given(
        config, "data_dir", "the folder that holds the TFRecord shards train-* and validation-*, or "
        "--synthetic_data to try without data",
    )  # fmt: skip
    shards = {records.TRAIN: config.data.shards, records.VALIDATION: ""}
    for name in names:
        # All that takes no time before what may take long.
        find_shards(config.data.data_dir, name, shards[name])
    assert config.model.num_classes is not None
    for name in names:
        split = records.open_split(
            config.data.data_dir, name, shards=shards[name], progress=scan_progress(name), environ=environ,
            policy=records.Policy.of(config),
        )  # fmt: skip
        records.check_labels(split, config.data.label_offset, config.model.num_classes)
        is_short = name == records.TRAIN and len(split) < _global_batch(config)
        if is_short and _speaks(config, environ):
            print(
                f"note: a step takes {_global_batch(config)} images (--batch_size times ranks), and there "
                f"are {len(split)}: each step trains some of them more than once, and is an epoch",
                file=sys.stderr,
            )
    if config.trains and run_folder.continued_run(config) is None and _speaks(config, environ):
        _mention_classes_without_pictures(config)


def _mention_classes_without_pictures(config: Config) -> None:
    """The default of --num_classes is the network's own, whatever the data are."""
    path = os.path.join(config.data.data_dir, classes.LABELS_FILE)
    number = config.model.num_classes or 0
    with contextlib.suppress(UsageError):  # a file that cannot be used names nothing, and says so elsewhere
        named = classes.find(config.data.data_dir, config.data.label_offset).count
        if named < number:
            print(
                f"note: {path} names {named} classes, and the network gets {number}; unless more are to "
                f"come, give --num_classes {named}",
                file=sys.stderr,
            )


def classes_in_data(config: Config) -> Optional[int]:
    """How many classes the data of `config` has; None where there is no data, which `check` reports.

    Builds the record index if labels.txt does not tell.

    Raises:
        UsageError: labels.txt or the shards cannot be used.
    """
    data_dir, offset = config.data.data_dir, config.data.label_offset
    if not os.path.isdir(data_dir):
        return None
    if os.path.exists(os.path.join(data_dir, classes.LABELS_FILE)):
        return classes.find(data_dir, offset).count
    split = records.open_split(
        data_dir, records.TRAIN, shards=config.data.shards, progress=scan_progress(records.TRAIN),
        policy=records.Policy.of(config),
    )  # fmt: skip
    return classes.find(data_dir, offset, [split]).count


def scan_progress(name: str) -> Callable[[int, int], None]:
    """Reports a first scan of a split on stderr, with the time that is left."""
    started = time.monotonic()
    is_terminal = sys.stderr.isatty()
    interval = PROGRESS_SECONDS if is_terminal else PROGRESS_SECONDS_IN_A_FILE
    last = started
    finished = False

    def report(done_bytes: int, total_bytes: int) -> None:
        nonlocal last, finished
        now = time.monotonic()
        ends = done_bytes >= total_bytes and last > started
        if finished or (now - last < interval and not ends):
            return
        last, finished = now, done_bytes >= total_bytes
        left = (now - started) * (total_bytes - done_bytes) / max(done_bytes, 1)
        line = (
            f"indexing {name} records, once: {done_bytes / 1e9:.1f} of {total_bytes / 1e9:.1f} GB, "
            f"{int(left) // 60}:{int(left) % 60:02d} left"
        )
        if is_terminal:
            print("\r" + line, end="\n" if finished else "", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    return report


def _check_outputs(config: Config) -> None:
    log_dir = config.run.log_dir
    if not _can_write(log_dir):
        raise refuse("log_dir", log_dir, "cannot be created or written; choose another folder")
    if os.path.isdir(os.path.join(log_dir, config.run.log_name)):
        raise refuse("log_name", config.run.log_name, f"is a folder in {log_dir}; choose another name")
    for name in (*RUN_FILES, *RUN_FOLDERS):
        path = os.path.join(log_dir, name)
        if os.path.lexists(path) and os.path.isdir(path) != (name in RUN_FOLDERS):
            there, needed = ("file", "folder") if name in RUN_FOLDERS else ("folder", "file")
            raise refuse(
                "log_dir", log_dir,
                f"{name} in it is not a {needed}, and a run keeps a {needed} of that name there; "
                f"move that {there} away, or choose another folder",
            )  # fmt: skip
    table = config.run.json
    if table and not files.can_replace(table):
        raise refuse("json", table, "cannot be written; give a file in a folder that exists")


def _can_write(folder: str) -> bool:
    """Whether `folder` is, or can become, a folder to write to; it is not created to find out."""
    nearest = os.path.abspath(folder)
    while not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    return os.path.isdir(nearest) and os.access(nearest, os.W_OK | os.X_OK)
