"""Settings as command-line arguments: reading them, and help."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import Any, Dict, List, NoReturn, Tuple

import densenet_keras
from densenet_keras.errors import UsageError
from densenet_keras.settings import unknown_flags
from densenet_keras.settings.programs import CONFIG, Program, tool
from densenet_keras.settings.rules import refuse, shown, validate_value
from densenet_keras.settings.setting import Setting

_EPILOG = (
    "README and code in the texts above are those of the original Estimator implementation. Switches take "
    "true/false, yes/no, on/off or 1/0, and a bare --flag is true. "
    "Exit codes: 0 done, 1 failed, 2 usage, 130 ctrl-C, 143 SIGTERM."
)
_SWITCH = {
    **dict.fromkeys(("true", "yes", "on", "1", "t", "y"), True),
    **dict.fromkeys(("false", "no", "off", "0", "f", "n"), False),
}


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
            unknown_flags.refuse_unknown(described, argument.partition("=")[0])
    parser = build_parser(described)
    if any(setting.metadata["positional"] for setting in described.settings.values()):
        # Pictures may stand between flags, and behind a bare one.
        namespace, others = parser.parse_known_intermixed_args(_with_bare_switches(described, argv))
    else:
        namespace, others = parser.parse_known_args(argv)
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


def _with_bare_switches(described: Program, argv: List[str]) -> List[str]:
    """`--json cat.jpg` as `--json=true cat.jpg`, where a switch is followed by what is no value of it."""
    switches = {f"--{name}" for name, setting in described.settings.items() if setting.kind.base is bool}
    following = [*argv[1:], ""]
    return [
        f"{argument}=true" if argument in switches and after.lower() not in _SWITCH else argument
        for argument, after in zip(argv, following)
    ]


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
