"""Session options of an NPU run from the flags, checked before any process starts; no TensorFlow.

The compiler reads a value in the wrong field as zero and an unknown key not at all, both without a
word, so everything is checked here.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections import OrderedDict
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from densenet_keras.backends.ascend import chips, option_keys, work_folder
from densenet_keras.errors import UsageError
from densenet_keras.settings.config import Config

Value = Union[bool, int, str]
Options = Dict[str, Tuple[str, Value]]

# What variables may take by default.
_DEFAULT_VARIABLE_BYTES = 5 * 1024**3

_MOST_DUMP_PIECES = 100


def session_options(
    config: Config, rank: int, iterations_per_loop: int = 1, environ: Optional[Mapping[str, str]] = None
) -> Options:
    """Key to (field, value) of everything the session of `rank` is configured with, in a fixed order.

    Args:
        iterations_per_loop: iterations that the device runs by itself.
        environ: of the rank; it may say where the compiler's files go.

    Raises:
        UsageError: a flag, or an --npu_option, is wrong or contradicts another.
    """
    flags = config.ascend
    options: Options = OrderedDict()
    options["use_off_line"] = ("b", True)
    options["enable_data_pre_proc"] = ("b", True)
    options["mix_compile_mode"] = ("b", False)
    options["iterations_per_loop"] = ("i", iterations_per_loop)
    options["graph_run_mode"] = ("i", 1 if config.trains else 0)
    for key in option_keys.PLAIN_FLAGS:
        value = getattr(flags, key)
        options[key] = ("b", value) if isinstance(value, bool) else ("s", value)
    for key in option_keys.PLAIN_FLAGS_IF_GIVEN:
        if getattr(flags, key):
            options[key] = ("s", getattr(flags, key))
    # Off by default in the older adapter. Ranks of a server share the cache, and so do later runs.
    options["op_compiler_cache_mode"] = ("s", "enable")
    _add_profiling(options, config, rank)
    _add_dump(options, config, rank)
    _add_further(options, config)
    _check_mixlist(options)
    _check_chip(options, chips.of(config))
    _check_paths(options)
    folder = work_folder.chosen(config, rank, environ or {})
    if folder and work_folder.OPTION not in options:
        options[work_folder.OPTION] = ("s", folder)
    return options


def make_folders(options: Options) -> None:
    """Creates the folders that the options name: the device does not.

    Raises:
        UsageError: one cannot be created.
    """
    for key, folder in _folders(options):
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{key}: folder {folder} cannot be created ({error.strerror})") from error


def _rank_folder(folder: str, rank: int) -> str:
    return os.path.join(os.path.abspath(folder), f"rank_{rank}")


def _add_profiling(options: Options, config: Config, rank: int) -> None:
    if not config.ascend.profiling:
        return
    # The two points must be named, or the device refuses the whole; empty means it finds them.
    profile = {
        "output": _rank_folder(config.ascend.profiling, rank),
        "training_trace": "on",
        "task_trace": "on",
        "aicpu": "on",
        "aic_metrics": "PipeUtilization",
        "fp_point": "",
        "bp_point": "",
    }
    options["profiling_mode"] = ("b", True)
    options["profiling_options"] = ("s", json.dumps(profile))


def _add_dump(options: Options, config: Config, rank: int) -> None:
    flags = config.ascend
    if flags.dump and flags.overflow_debug:
        raise UsageError("--dump and --overflow_debug exclude each other on the device; give one of them")
    if not flags.dump and (flags.dump_step or flags.dump_mode != "output"):
        raise UsageError("--dump_step and --dump_mode say what --dump writes; give --dump DIR as well")
    if flags.dump:
        options["enable_dump"] = ("b", True)
        options["dump_path"] = ("s", _rank_folder(flags.dump, rank))
        options["dump_mode"] = ("s", flags.dump_mode)
        if flags.dump_step:
            _check_dump_step(flags.dump_step)
            options["dump_step"] = ("s", flags.dump_step)
    if flags.overflow_debug:
        options["enable_dump_debug"] = ("b", True)
        options["dump_path"] = ("s", _rank_folder(flags.overflow_debug, rank))
        options["dump_debug_mode"] = ("s", "all")


def _check_dump_step(text: str) -> None:
    pieces = text.split("|")
    if len(pieces) > _MOST_DUMP_PIECES:
        raise UsageError(f"--dump_step has {len(pieces)} pieces, at most {_MOST_DUMP_PIECES}")
    for piece in pieces:
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", piece)
        # Of a range that ends where it begins the adapter ends the process.
        if not match or (match.group(2) and int(match.group(2)) <= int(match.group(1))):
            raise UsageError(f"--dump_step {text}: {piece!r} is neither step nor range; such as 0|5|10-20")


def _add_further(options: Options, config: Config) -> None:
    """The --npu_option settings, which may not touch what another flag or this project decides."""
    seen = set()
    for setting in config.ascend.npu_option:
        key, separator, text = setting.partition("=")
        if not separator:
            raise UsageError(f"--npu_option {setting}: KEY=VALUE")
        if key in seen:
            raise UsageError(f"--npu_option {key} is given twice; remove one")
        seen.add(key)
        _check_key(key)
        options[key] = (option_keys.OPTIONS[key].field, _value(key, text))
    if options.get("op_compiler_cache_mode") == ("s", "disable") and "op_compiler_cache_dir" in options:
        raise UsageError("--npu_option op_compiler_cache_mode=disable contradicts --op_compiler_cache_dir")
    for key in ("dump_data", "dump_layer"):
        if key in seen and not config.ascend.dump:
            raise UsageError(f"--npu_option {key} says what --dump writes; give --dump DIR as well")
    if "dump_debug_mode" in seen and not config.ascend.overflow_debug:
        raise UsageError("--npu_option dump_debug_mode says what --overflow_debug writes; give it as well")
    if option_keys.PRECISION_MODE_V2 in seen:
        if options[option_keys.PLAIN_FLAGS[0]] != ("s", option_keys.MIXED_PRECISION):
            raise UsageError(
                f"--npu_option {option_keys.PRECISION_MODE_V2} takes the place of "
                f"--{option_keys.PLAIN_FLAGS[0]}; give one of them"
            )
        del options[option_keys.PLAIN_FLAGS[0]]
    for key, needed in option_keys.NEEDED_WITH.items():
        if key in seen and needed not in seen:
            raise UsageError(f"--npu_option {key} has no meaning without {needed}; give both or neither")
    for key, other in option_keys.EXCLUDED_BY.items():
        if key in seen and other in seen:
            raise UsageError(f"--npu_option {key} and {other} exclude each other; give one of them")


def _check_mixlist(options: Options) -> None:
    """--modify_mixlist goes with mixed precision only, in either form; otherwise the adapter refuses it."""
    if "modify_mixlist" not in options:
        return
    older, newer = option_keys.PLAIN_FLAGS[0], option_keys.PRECISION_MODE_V2
    if older in options and options[older] != ("s", option_keys.MIXED_PRECISION):
        raise UsageError(
            f"--modify_mixlist changes the lists of mixed precision, got --{older} {options[older][1]}; "
            f"it needs {option_keys.MIXED_PRECISION}"
        )
    if newer in options and options[newer][1] not in option_keys.MIXED_PRECISION_V2:
        raise UsageError(
            f"--modify_mixlist changes the lists of mixed precision, got --npu_option {newer}="
            f"{options[newer][1]}; it needs {' or '.join(option_keys.MIXED_PRECISION_V2)}"
        )


def _check_key(key: str) -> None:
    if key in option_keys.OWNED:
        raise UsageError(f"--npu_option {key}: the flag {option_keys.OWNED[key]} decides it; use that")
    if key in option_keys.REFUSED:
        raise UsageError(f"--npu_option {key} cannot be set: {option_keys.REFUSED[key]}")
    if key not in option_keys.OPTIONS:
        known = [*option_keys.OPTIONS, *option_keys.OWNED]
        close = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
        close = [option_keys.OWNED.get(name, name) for name in close]
        hint = f"; do you mean {' or '.join(close)}?" if close else ""
        raise UsageError(f"--npu_option {key} is not an option that the adapter reads{hint}")


def _value(key: str, text: str) -> Value:
    option = option_keys.OPTIONS[key]
    if option.choices and text not in option.choices:
        raise UsageError(f"--npu_option {key}={text}: one of {', '.join(option.choices)}")
    if option.field == "b":
        if text not in ("true", "false"):
            raise UsageError(f"--npu_option {key}={text}: true or false")
        return text == "true"
    if option.field == "i":
        if not re.fullmatch(r"-?\d+", text):
            raise UsageError(f"--npu_option {key}={text}: a whole number")
        return int(text)
    if not text:
        raise UsageError(f"--npu_option {key}= has no value; remove it or give one")
    return text


def _bytes(flag: str, text: Any) -> int:
    if not re.fullmatch(r"\s*\d+(\s*\*\s*\d+)*\s*", str(text)):
        raise UsageError(f"{flag} {text}: bytes, or a product such as 26*1024*1024*1024")
    product = 1
    for factor in str(text).split("*"):
        product *= int(factor)
    return product


def _check_chip(options: Options, chip: chips.Chip) -> None:
    """Values that only another kind of NPU takes."""
    precision = str(options.get(option_keys.PRECISION_MODE_V2, ("s", ""))[1])
    if precision in option_keys.NEEDS_BFLOAT16 and not chip.has_bfloat16:
        raise UsageError(
            f"--npu_option {option_keys.PRECISION_MODE_V2}={precision}: the {chip.name} has no such type; "
            "take mixed_float16, or say which NPU it is with --npu"
        )
    if not chip.saturates and options.get("dump_debug_mode", ("s", "all"))[1] != "all":
        raise UsageError(f"--npu_option dump_debug_mode: the {chip.name} takes all only; leave it out")
    _check_memory(options, chip.memory_bytes)


def _check_memory(options: Options, limit: int) -> None:
    sizes = {}
    for key in ("graph_memory_max_size", "variable_memory_max_size"):
        if key in options:
            sizes[key] = _bytes(key, options[key][1])
            if sizes[key] == 0:
                raise UsageError(f"{key} is 0 bytes; leave it out for the default")
    total = sum(sizes.values())
    if "variable_memory_max_size" not in sizes and sizes:
        total += _DEFAULT_VARIABLE_BYTES
    if total > limit:
        raise UsageError(
            f"graph_memory_max_size and variable_memory_max_size are {total / 1024**3:.1f} GiB in all "
            f"(variables take {_DEFAULT_VARIABLE_BYTES // 1024**3} GiB by default); the device gives "
            f"{limit // 1024**3} GiB"
        )


def _folders(options: Options) -> List[Tuple[str, str]]:
    folders = [(key, str(options[key][1])) for key in option_keys.FOLDERS if key in options]
    if "profiling_options" in options:
        folders.append(("profiling", json.loads(str(options["profiling_options"][1]))["output"]))
    return folders


def _check_paths(options: Options) -> None:
    for key in option_keys.FILES:
        if key in options and not os.path.isfile(str(options[key][1])):
            raise UsageError(f"{key}: file {options[key][1]} does not exist")
    for key, folder in _folders(options):
        ancestor = os.path.abspath(folder)
        while not os.path.lexists(ancestor):
            ancestor = os.path.dirname(ancestor)
        if not os.path.isdir(ancestor) or not os.access(ancestor, os.W_OK | os.X_OK):
            raise UsageError(f"{key}: folder {folder} cannot be written, because of {ancestor}")
