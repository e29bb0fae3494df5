"""What a command was given, to a configuration with nothing in it left to choose; without TensorFlow."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Dict, Mapping, Optional

from densenet_keras import backends
from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import run_folder
from densenet_keras.errors import UsageError
from densenet_keras.network.variants import VARIANTS
from densenet_keras.settings import config as configuration
from densenet_keras.settings import programs
from densenet_keras.settings.config import EVALUATE, FINETUNE, TRAIN, Config, ModelConfig, fields
from densenet_keras.settings.rules import refuse, shown, validate
from densenet_keras.topology import Topology, adopt_rank_size, available_cores, in_place

_MODEL_SETTINGS = tuple(field.name for field in dataclasses.fields(ModelConfig))
# Of each command: the flag of its checkpoint, the settings that must be the checkpoint's for its
# variables to fit, and those taken from the run.json beside it unless given.
_INHERITED = {
    EVALUATE: (
        "eval_dir",
        ("model", "num_classes", "growth_rate", "bn_size", "stem"),
        (*_MODEL_SETTINGS, "label_offset"),
    ),
    FINETUNE: ("restore_path", ("model", "growth_rate", "bn_size", "stem"), _MODEL_SETTINGS),
}


def resolved(command: str, given: Dict[str, Any], environ: Mapping[str, str]) -> Config:
    """The configuration of `command` with the settings `given`, by name; see `main.parse`."""
    file = given.pop(programs.CONFIG, None)
    if file is not None:
        stored = _settings_of_file(command, file, given)
        if "max_train_steps" in given and "max_epochs" not in given:
            stored["max_epochs"] = None  # of the file: it would take precedence over the flag
        given = {**stored, **given}
    defaults = Config.defaults(command)
    if command == EVALUATE or (command == TRAIN and given.get("mode") == EVALUATE):
        defaults = defaults.replace(command=EVALUATE, mode=EVALUATE)
    config = defaults.replace(**given)
    validate(config)
    config = resolve(_fitted(_inherit(config, given), given), environ)
    validate(config)  # a run.json may have been edited
    return config


def _fitted(config: Config, given: Dict[str, Any]) -> Config:
    """`config` with what fine-tuning takes from its data and its own length, unless given."""
    if config.command != FINETUNE:
        return config
    found: Dict[str, Any] = {}
    if given.get("max_train_steps") is not None and given.get("max_epochs") is None:
        config = config.replace(max_epochs=None)
    if given.get("T_max") is None and config.run.max_epochs is not None:
        found["T_max"] = config.run.max_epochs
    if given.get("num_classes") is None and not config.data.synthetic_data:
        from densenet_keras.commands import preflight

        found["num_classes"] = preflight.classes_in_data(config)
    return config.replace(**{name: value for name, value in found.items() if value is not None})


def resolve(config: Config, environ: Mapping[str, str]) -> Config:
    """`config` with a value for every setting that was left open.

    Raises:
        UsageError: the environment contradicts --rank_size, or the run.json in log_dir is unreadable.
    """
    if config.device.backend == "auto":
        config = config.replace(backend=backends.automatic())
    config = adopt_rank_size(config, environ)
    variant = VARIANTS[config.model.model]
    cores = max(1, available_cores() // _local_ranks(config, environ))
    found: Dict[str, Any] = {
        "num_classes": variant.num_classes,
        "image_size": variant.image_size,
        "growth_rate": variant.growth_rate,
        "data_threads": cores,
        "intra_op_threads": cores,
        "fast_cpu": True,
        **backends.host(config).defaults,
    }
    continued = run_folder.continued_run(config)
    if continued is not None:
        # The first two decide the last bits, the others where lines and checkpoints are: a run keeps its own.
        for name in ("intra_op_threads", "fast_cpu", "iterations_per_loop", "save_checkpoints_steps"):
            if continued.get(name) is not None:
                found[name] = continued.get(name)
    return config.replace(**{name: value for name, value in found.items() if config.get(name) is None})


def _local_ranks(config: Config, environ: Mapping[str, str]) -> int:
    if in_place(environ):
        return Topology.from_environment(environ, config).local_size
    return backends.host(config).local_ranks(config)


def _settings_of_file(command: str, file: str, given: Dict[str, Any]) -> Dict[str, Any]:
    """What of the run.json `file` applies to `command`."""
    try:
        stored = configuration.load(file)
    except UsageError as error:
        raise UsageError(f"--config: {error}") from error
    settings = {
        name: stored.get(name) for name, field in fields().items() if command in field.metadata["commands"]
    }
    if command == FINETUNE and stored.command == EVALUATE:
        del settings["mode"]
    mode = given.get("mode", settings.get("mode", EVALUATE))
    if stored.command == (EVALUATE if mode == EVALUATE else command):
        if mode != EVALUATE and "log_dir" not in given:
            _check_not_moved(file, stored.run.log_dir)
        return settings
    # Another command's run: its folder is not this one's, but what it left there can be evaluated.
    del settings["log_dir"]
    if mode == EVALUATE:
        beside = os.path.dirname(file) or "."
        settings["eval_dir"] = beside if checkpoint_files.newest(beside) else stored.run.log_dir
    return settings


def _check_not_moved(file: str, log_dir: str) -> None:
    """Refuses to begin anew in the folder that a run has left, when its run.json is meant to continue it."""
    beside = os.path.dirname(file) or "."
    if checkpoint_files.newest(beside) and not checkpoint_files.newest(log_dir):
        raise UsageError(
            f"--config {file} says --log_dir {log_dir}, where there is no run, and lies beside checkpoints; "
            f"give --log_dir {beside} to continue these, or --log_dir {log_dir} to start a run there"
        )


def _inherit(config: Config, given: Dict[str, Any]) -> Config:
    """`config` with the settings, unless given, that the network in the checkpoint was trained with."""
    if config.command not in _INHERITED:
        return config
    from densenet_keras.commands import foreign

    flag, fixed, names = _INHERITED[config.command]
    path = config.get(flag)
    source = foreign.opened(path) if config.command == FINETUNE and path else None
    if source is not None:
        there = {name: value for name, value in given.items() if name not in fixed}
        stored: Optional[Config] = config.replace(**foreign.network_of(source, there))
        teller = "say its arrays"
    else:
        stored, teller = run_folder.stored_config(path), "says its run"
    if stored is None:
        return config
    for name in fixed:
        if given.get(name) is not None and given[name] != stored.get(name):
            raise refuse(
                name,
                given[name],
                f"--{flag} {path} was trained with {shown(stored.get(name))}, {teller}; leave --{name} out",
            )
    return config.replace(**{name: stored.get(name) for name in names if given.get(name) is None})
