"""Settings as command-line flags: reading them, suggesting the right one, and --help."""

from __future__ import annotations

import argparse
import difflib
import re
from typing import Any, Dict, List, Optional

from densenet_keras.errors import UsageError
from densenet_keras.settings.config import EVALUATE, FINETUNE, GROUPS, TRAIN, Config, fields, group_of, kinds
from densenet_keras.settings.rules import refuse, shown

SCRIPTS = {TRAIN: "train_keras.py", EVALUATE: "evaluate.py", FINETUNE: "finetune.py"}
CONFIG = "config"

_PURPOSE = {
    TRAIN: "Trains DenseNet on TFRecords, or evaluates its checkpoints (--mode evaluate). The same command "
           "again continues from the newest checkpoint in --log_dir.",
    EVALUATE: "Evaluates one checkpoint or a folder of them. The network's settings are read from the "
              "run.json beside the checkpoints.",
    FINETUNE: "Trains from the weights of a checkpoint (--restore, required), all but the classifier. The "
              "network's settings are read from the run.json beside the checkpoint.",
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


def read(command: str, argv: List[str]) -> Dict[str, Any]:
    """The settings given in `argv`, by name, with --config's file as "config"; nothing else.

    Raises:
        UsageError: an unknown flag, one of another command, or a text that is no such value.
        SystemExit: after --help.
    """
    argv = _attach_negative_numbers(argv)
    for argument in argv:
        if re.match(r"--?[A-Za-z]|--$", argument):
            _check_known(command, argument.partition("=")[0])
    namespace, others = build_parser(command).parse_known_args(argv)
    if others:
        raise UsageError(f"unexpected argument {others[0]}: a value must follow its flag, as in --lr 0.1")
    given = vars(namespace)
    return {name: text if name == CONFIG else from_text(name, text) for name, text in given.items()}


def from_text(name: str, text: Any) -> Any:
    """The value that `text`, as typed (for tuples: a list of lists of texts), means for a setting.

    Raises:
        UsageError: it means none.
    """
    kind = kinds()[name]
    metadata = fields()[name].metadata
    if kind.many:
        items = [item for occurrence in text for item in occurrence]
        if not metadata["repeated"]:
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
    for choice in metadata["choices"] or ():
        if text.lower() in (choice.lower(), choice.rpartition(".")[2].lower()):
            return choice
    return text


def build_parser(command: str) -> argparse.ArgumentParser:
    """The options of `command`, with help; it turns no text into values."""
    parser = _Parser(
        prog=SCRIPTS[command],
        usage=f"python {SCRIPTS[command]} [--flag value | --flag=value] ...",
        description=_PURPOSE[command],
        epilog=_EPILOG,
        allow_abbrev=False,  # an abbreviation means another flag once a longer one is added
        argument_default=argparse.SUPPRESS,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28),
    )
    defaults = Config.defaults(command)
    titles = {name: kind.__doc__.rstrip(".") for name, kind in GROUPS.items()}  # type: ignore[union-attr]
    groups = {name: parser.add_argument_group(title) for name, title in titles.items()}
    for name, field in fields().items():
        if command in field.metadata["commands"]:
            _add(groups[group_of(name)], name, field.metadata, defaults.get(name))
    parser.add_argument(
        f"--{CONFIG}", metavar="FILE",
        help="run.json of an earlier run, whose settings replace the defaults; of another command's run, "
             "those that apply here",
    )  # fmt: skip
    return parser


def _add(group: Any, name: str, metadata: Any, default: Any) -> None:
    kind = kinds()[name]
    metavar = metadata["metavar"]
    if metavar is None and metadata["choices"]:
        metavar = "{" + ",".join(metadata["choices"]) + "}"
    if metavar is None:
        metavar = {bool: "true|false", int: "N", float: "X", str: "TEXT"}[kind.base]
    text = metadata["help"]
    if "default" not in text:
        text += f" [{'none' if default in ('', (), None) else shown(default)}]"
    how: Dict[str, Any] = {}
    if kind.base is bool:
        how = {"nargs": "?", "const": "true"}
    elif kind.many:
        how = {"nargs": "*", "action": "append"}
    group.add_argument(
        f"--{name}", *metadata["aliases"], dest=name, metavar=metavar, help=text.replace("%", "%%"), **how
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        """Raises the error, for one place to report it."""
        missing = re.match(r"argument (\S+): expected", message)
        if missing:
            name = missing.group(1).split("/")[0]
            raise UsageError(f"{name}: a value must follow, as in {name}=VALUE")
        raise UsageError(message)


def _names(command: Optional[str] = None) -> Dict[str, str]:
    """Every spelling of a flag (of `command`) with its setting's name."""
    names = {
        spelling: name
        for name, field in fields().items()
        if command is None or command in field.metadata["commands"]
        for spelling in (f"--{name}", *field.metadata["aliases"])
    }
    return {**names, f"--{CONFIG}": CONFIG}


def _check_known(command: str, flag: str) -> None:
    if flag in ("-h", "--help") or flag in _names(command):
        return
    if flag in _names():
        owners = fields()[_names()[flag]].metadata["commands"]
        scripts = " and ".join(SCRIPTS[owner] for owner in owners)
        raise UsageError(f"{flag} is a flag of {scripts}, not of {SCRIPTS[command]}; leave it out")
    word = flag.lstrip("-").lower().replace("-", "_")
    spellings = {spelling[2:].lower(): spelling for spelling in _names(command)}
    negated = spellings.get(re.sub("^no_?", "", word))
    if word.startswith("no") and negated and kinds()[_names()[negated]].base is bool:
        raise UsageError(f"unknown flag {flag}; write {negated} false")
    wanted = _SYNONYMS.get(word)
    close = difflib.get_close_matches(word, spellings, n=1)
    if wanted in spellings:
        close = [wanted]
    if close:
        raise UsageError(f"unknown flag {flag}; did you mean {spellings[close[0]]}?")
    raise UsageError(f"unknown flag {flag}; python {SCRIPTS[command]} --help lists all")


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
