"""Settings as command-line arguments: reading them, suggesting the right one, and help."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from typing import Any, Dict, List, NamedTuple, NoReturn, Tuple

import densenet_keras
from densenet_keras.errors import UsageError
from densenet_keras.settings.config import EVALUATE, FINETUNE, TRAIN, Config, fields, settings
from densenet_keras.settings.rules import refuse, shown, validate_value
from densenet_keras.settings.setting import Setting, settings_of

SCRIPTS = {TRAIN: "train_keras.py", EVALUATE: "evaluate.py", FINETUNE: "finetune.py"}
CONFIG = "config"


class Program(NamedTuple):
    """A command line.

    Attributes:
        call: what follows `python`.
        purpose: what it is for, a few sentences.
        example: one that works, without `python` and `call`.
        settings: by name, in the order of help.
        common: flags that --help explains; --help_all explains the others too. Empty: all.
        takes_config: whether a run.json can give the settings (--config).
    """

    call: str
    purpose: str
    example: str
    settings: Dict[str, Setting]
    common: Tuple[str, ...] = ()
    takes_config: bool = False


class Tool(NamedTuple):
    """A command of `python -m densenet_keras` that neither trains nor evaluates.

    Its module has `Settings`, a frozen dataclass of `flag`s whose docstring says what the command is for,
    `EXAMPLE`, arguments that work, and `run`, from settings to exit code. It raises UsageError and RunError
    like everything else.
    """

    module: str  # in densenet_keras, imported when it is asked for
    purpose: str


_PURPOSE = {
    TRAIN: "Trains DenseNet on TFRecords, or evaluates its checkpoints (--mode evaluate). The same command "
    "again continues from the newest checkpoint in --log_dir.",
    EVALUATE: "Evaluates one checkpoint or a folder of them. The network's settings are read from the "
    "run.json beside the checkpoints.",
    FINETUNE: "Trains from the weights of a checkpoint (--restore, required), all but the classifier. The "
    "network's settings are read from the run.json beside the checkpoint.",
}
_EXAMPLE = {
    TRAIN: "--data_dir /data/imagenet --log_dir run --rank_size 8 --max_epochs 150 --mode train_and_evaluate",
    EVALUATE: "--eval_dir run --data_dir /data/imagenet",
    FINETUNE: "--restore run --data_dir my_data --log_dir tuned --max_epochs 20",
}
_COMMON = {
    TRAIN: ("data_dir", "batch_size", "model", "num_classes", "lr", "max_epochs", "log_dir", "rank_size"),
    EVALUATE: (
        "data_dir", "batch_size", "label_offset", "log_dir", "eval_dir", "json", "rank_size", "backend"
    ),
    FINETUNE: (
        "data_dir", "batch_size", "num_classes", "lr", "max_epochs", "log_dir", "restore_path", "rank_size"
    ),
}  # fmt: skip
_EPILOG = (
    "README and code in the texts above are those of the original Estimator implementation. Switches take "
    "true/false, yes/no, on/off or 1/0, and a bare --flag is true. "
    "Exit codes: 0 done, 1 failed, 2 usage, 130 ctrl-C, 143 SIGTERM."
)
_SWITCH = {
    **dict.fromkeys(("true", "yes", "on", "1", "t", "y"), True),
    **dict.fromkeys(("false", "no", "off", "0", "f", "n"), False),
}
# What other trainers call it, where the spelling alone would suggest another flag or none.
_SYNONYMS = {
    "learning_rate": "lr",
    "epochs": "max_epochs",
    "steps": "max_train_steps",
    "wd": "weight_decay",
    "arch": "model",
    "class_num": "num_classes",
    "model_dir": "log_dir",
    "output_dir": "log_dir",
    "checkpoint": "restore_path",
    "pretrained": "restore_path",
    "gpus": "rank_size",
    "npus": "rank_size",
    "nesterov": "use_nesterov",
}
# What other trainers have a flag for, and this one does in another way.
_ADVICE = {
    "resume": "the same command again continues the run in --log_dir; to start from other weights, give "
    "finetune.py --restore CKPT",
    "gpu": "a GPU that TensorFlow sees is used by itself, one for each rank: --rank_size N",
    "device": "--backend chooses between CPU or GPU (tensorflow) and NPU (ascend); --rank_size N takes N of "
    "them",
    "amp": "on an NPU mixed precision is the default, see --precision_mode; on a CPU there is none",
    "fp16": "on an NPU mixed precision is the default, see --precision_mode; on a CPU there is none",
    "include_top": "finetune.py leaves out the classifier of the checkpoint and makes a new one for "
    "--num_classes",
    "weights": "finetune.py --restore CKPT starts from a checkpoint; no weights are downloaded",
    "workers": "--rank_size is the number of ranks, --data_threads that of decoders",
    "num_workers": "--data_threads is the number of parallel decoders",
}


def program(command: str) -> Program:
    """The command line of train, evaluate or finetune."""
    defaults = Config.defaults(command)
    taken = {
        name: setting._replace(default=defaults.get(name))
        for name, setting in settings().items()
        if command in setting.metadata["commands"]
    }
    return Program(
        SCRIPTS[command], _PURPOSE[command], _EXAMPLE[command], taken, _COMMON[command], takes_config=True
    )


def tool(name: str, record: type, example: str) -> Program:
    """The command line of `python -m densenet_keras NAME`, whose settings are the fields of `record`.

    The first line of the record's docstring is the title of its flags, the rest says what it is for.
    """
    _, _, purpose = (record.__doc__ or "").partition("\n\n")
    return Program(f"-m densenet_keras {name}", " ".join(purpose.split()), example, settings_of(record))


def parse_tool(name: str, record: type, example: str, argv: List[str]) -> Any:
    """The record that `argv` asks for, each value checked by its own rule.

    Raises:
        UsageError: naming flag, value, rule and remedy.
        SystemExit: after --help and --version.
    """
    described = tool(name, record, example)
    made = record(**read(described, argv))
    for setting in described.settings.values():
        value = getattr(made, setting.name)
        if setting.metadata["positional"] and value in ("", None):
            missing = setting.metadata["metavar"] or setting.name.upper()
            raise UsageError(f"{missing} is missing; python {described.call} --help shows an example")
        validate_value(setting, value)
    return made


def read(described: Program, argv: List[str]) -> Dict[str, Any]:
    """The settings given in `argv`, by name, with --config's file as "config"; nothing else.

    Raises:
        UsageError: an unknown flag, one of another command, or a text that is not such a value.
        SystemExit: after --help, --help_all and --version.
    """
    _answer(described, argv)
    argv = _attach_negative_numbers(argv)
    for argument in argv:
        if re.match(r"--?[A-Za-z]|--$", argument):
            _check_known(described, argument.partition("=")[0])
    namespace, others = build_parser(described).parse_known_args(argv)
    if others:
        raise UsageError(f"unexpected argument {others[0]}: a value must follow its flag, as in --lr 0.1")
    return {
        name: os.path.expanduser(text) if name == CONFIG else from_text(described.settings[name], text)
        for name, text in vars(namespace).items()
        if text != []  # a list of positional arguments that was not given
    }


def _answer(described: Program, argv: List[str]) -> None:
    """Prints what --version, --help and --help_all ask for, and ends."""
    for argument in argv:
        if argument == "--version":
            print(f"densenet_keras {densenet_keras.__version__}")
        elif argument in ("-h", "--help"):
            print(help_text(described, described.common))
        elif argument == "--help_all":
            print(help_text(described, ()))
        else:
            continue
        sys.exit(0)


def help_text(described: Program, common: Tuple[str, ...]) -> str:
    """The help of a command: the flags `common` with what they do, the others by name; all if empty."""
    text = build_parser(described, common).format_help().rstrip()
    if not common:
        return text
    groups: Dict[str, List[str]] = {}
    for setting in described.settings.values():
        if setting.name not in common:
            groups.setdefault(setting.group.partition(":")[0], []).append(f"--{setting.name}")
    lines = ["\nmore flags, explained by --help_all:"]
    for title, names in groups.items():
        lines += _wrapped(f"  {title + ':':<11}", names)
    return "\n".join([text, *lines])


def _wrapped(title: str, words: List[str], width: int = 100) -> List[str]:
    lines = [title]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > width:
            lines.append(" " * len(title))
        lines[-1] += " " + word
    return lines


def from_text(setting: Setting, text: Any) -> Any:
    """The value that `text`, as typed (for tuples: a list of lists of texts), means for a setting.

    Raises:
        UsageError: it means none.
    """
    kind, name = setting.kind, setting.name
    if kind.many:
        if setting.metadata["positional"]:
            return tuple(text)
        items = [item for occurrence in text for item in occurrence]
        if not setting.metadata["repeated"]:
            items = [part for item in items for part in item.split(",")]
        return tuple(item.strip() for item in items if item.strip())
    if kind.optional and text.lower() == "none":
        return None
    if kind.base is bool:
        if text.lower() not in _SWITCH:
            raise refuse(name, text, "must be true or false (also yes/no, on/off, 1/0)")
        return _SWITCH[text.lower()]
    if kind.base is int:
        if not re.fullmatch(r"[+-]?[0-9]+", text):
            raise refuse(name, text, "must be a whole number, such as 1000")
        return int(text)
    if kind.base is float:
        try:
            return float(text.replace("_", "?"))  # Python would read 1_0 as 10
        except ValueError:
            raise refuse(name, text, "must be a number, such as 0.1 or 1e-4") from None
    for choice in setting.metadata["choices"] or ():
        if text.lower() in (choice.lower(), choice.rpartition(".")[2].lower()):
            return choice
    return setting.completed(text)


def build_parser(described: Program, common: Tuple[str, ...] = ()) -> argparse.ArgumentParser:
    """The options of a command, with help; it turns no text into values.

    Args:
        common: only these; all if empty.
    """
    positional = [s for s in described.settings.values() if s.metadata["positional"]]
    named = " ".join(s.metadata["metavar"] or s.name.upper() for s in positional)
    parser = _Parser(
        prog=described.call,
        usage=f"python {described.call} {named + ' ' if named else ''}[--flag value | --flag=value] ...",
        description=f"{described.purpose} Example: python {described.call} {described.example}",
        epilog=_EPILOG if described.takes_config and not common else None,
        allow_abbrev=False,  # an abbreviation means another flag once a longer one is added
        argument_default=argparse.SUPPRESS,
        add_help=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28),
    )
    groups: Dict[str, Any] = {}
    for setting in described.settings.values():
        if common and setting.name not in common:
            continue
        title = "the flags that everybody needs" if common else setting.group
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add(groups[title], setting)
    if described.takes_config and not common:
        parser.add_argument(
            f"--{CONFIG}", metavar="FILE",
            help="run.json of an earlier run, whose settings replace the defaults; of another command's run, "
                 "those that apply here",
        )  # fmt: skip
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    return parser


def _add(group: Any, setting: Setting) -> None:
    kind, metadata, default = setting.kind, setting.metadata, setting.default
    metavar = metadata["metavar"]
    if metavar is None and metadata["choices"]:
        metavar = "{" + ",".join(metadata["choices"]) + "}"
    if metavar is None:
        metavar = {bool: "true|false", int: "N", float: "X", str: "TEXT"}[kind.base]
    text = metadata["help"]
    if metadata["positional"]:
        group.add_argument(
            setting.name, metavar=metavar, help=text.replace("%", "%%"), nargs="*" if kind.many else "?"
        )
        return
    if "default" not in text:
        text += f" [{'none' if default in ('', (), None) else shown(default)}]"
    how: Dict[str, Any] = {}
    if kind.base is bool:
        how = {"nargs": "?", "const": "true"}
    elif kind.many:
        how = {"nargs": "*", "action": "append"}
    name = f"--{setting.name}"
    help = text.replace("%", "%%")
    group.add_argument(name, *metadata["aliases"], dest=setting.name, metavar=metavar, help=help, **how)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raises the error, for one place to report it."""
        missing = re.match(r"argument (\S+): expected", message)
        if missing:
            name = missing.group(1).split("/")[0]
            raise UsageError(f"{name}: a value must follow, as in {name}=VALUE")
        raise UsageError(message)


def _spellings(described: Program) -> Dict[str, str]:
    """Every spelling of a flag with its setting's name."""
    names = {
        spelling: setting.name
        for setting in described.settings.values()
        if not setting.metadata["positional"]
        for spelling in (f"--{setting.name}", *setting.metadata["aliases"])
    }
    return {**names, f"--{CONFIG}": CONFIG} if described.takes_config else names


def _check_known(described: Program, flag: str) -> None:
    known = _spellings(described)
    if flag in known:
        return
    word = flag.lstrip("-").lower().replace("-", "_")
    if described.takes_config:
        _check_other_commands(described, flag)
        if word in _ADVICE:
            raise UsageError(f"unknown flag {flag}: {_ADVICE[word]}")
    spellings = {spelling[2:].lower(): spelling for spelling in known}
    negated = spellings.get(re.sub("^no_?", "", word))
    if word.startswith("no") and negated and described.settings[known[negated]].kind.base is bool:
        raise UsageError(f"unknown flag {flag}; write {negated} false")
    wanted = _SYNONYMS.get(word)
    close = difflib.get_close_matches(word, spellings, n=1)
    if wanted in spellings:
        close = [wanted]
    if close:
        raise UsageError(f"unknown flag {flag}; did you mean {spellings[close[0]]}?")
    raise UsageError(f"unknown flag {flag}; python {described.call} --help lists all")


def _check_other_commands(described: Program, flag: str) -> None:
    names = {s: n for n, f in fields().items() for s in (f"--{n}", *f.metadata["aliases"])}
    if flag in names:
        owners = fields()[names[flag]].metadata["commands"]
        scripts = " and ".join(SCRIPTS[owner] for owner in owners)
        raise UsageError(f"{flag} is a flag of {scripts}, not of {described.call}; leave it out")


def _attach_negative_numbers(argv: List[str]) -> List[str]:
    """`--lr -1e-3` as `--lr=-1e-3`, which argparse would take for a missing value."""
    attached: List[str] = []
    for argument in argv:
        number = re.fullmatch(r"-(\d[\d.]*|\.\d+)(e[+-]?\d+)?|-inf|-nan", argument, re.IGNORECASE)
        if number and attached and re.fullmatch(r"--\w+", attached[-1]):
            attached[-1] += "=" + argument
        else:
            attached.append(argument)
    return attached
