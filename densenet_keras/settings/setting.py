"""What a setting is: its default, help, allowed values, and how JSON values become it."""

from __future__ import annotations

import dataclasses
import os
import re
import typing
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple, Union

TRAIN = "train"
EVALUATE = "evaluate"
FINETUNE = "finetune"
PREDICT = "predict"  # has no flags of its own here: what it takes stands in its own record
ALL = (TRAIN, EVALUATE, FINETUNE)
TRAINING = (TRAIN, FINETUNE)


class Rule(NamedTuple):
    """Which values a setting may take, and the sentence that a refused value gets."""

    holds: Callable[[Any], bool]
    text: str


NOT_EMPTY = Rule(lambda value: value != "", "must not be empty")
POSITIVE = Rule(lambda value: value > 0, "must be greater than 0")


def at_least(least: int) -> Rule:
    return Rule(lambda value: value >= least, f"must be at least {least}")


def between(low: float, high: float, text: str) -> Rule:
    """low <= value < high."""
    return Rule(lambda value: low <= value < high, text)


def matches(pattern: str, text: str) -> Rule:
    """Strings that are wholly `pattern`."""
    return Rule(lambda value: re.fullmatch(pattern, value) is not None, text)


def flag(
    default: Any,
    help: str,
    *,
    commands: Tuple[str, ...] = ALL,
    choices: Optional[Tuple[str, ...]] = None,
    rule: Optional[Rule] = None,
    aliases: Tuple[str, ...] = (),
    metavar: Optional[str] = None,
    repeated: bool = False,
    positional: bool = False,
    command_defaults: Optional[Dict[str, Any]] = None,
) -> Any:
    """A dataclass field that is also the command-line flag of the same name.

    Args:
        default: None in an optional field is filled in before a run starts.
        help: what the setting does; the default is appended to it.
        commands: the commands that take the flag.
        choices: the only values allowed (strings).
        rule: what other values must satisfy; of a tuple, each item.
        aliases: further spellings of the flag.
        metavar: what stands for the value in the help.
        repeated: a tuple whose items are never split at commas, because they may hold some.
        positional: given without a flag's name; needed unless it is a tuple.
        command_defaults: defaults of single commands where they differ from `default`.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "commands": commands,
            "choices": choices,
            "rule": rule,
            "aliases": aliases,
            "metavar": metavar,
            "repeated": repeated,
            "positional": positional,
            "command_defaults": command_defaults or {},
        },
    )


class Kind(NamedTuple):
    """The type of a setting: `base`, or None as well, or a tuple of `base`."""

    base: type
    optional: bool
    many: bool


def kind_of(hint: Any) -> Kind:
    """The kind behind an annotation such as int, Optional[int] or Tuple[str, ...]."""
    origin = getattr(hint, "__origin__", None)
    if origin is Union:
        return Kind(hint.__args__[0], optional=True, many=False)
    if origin is tuple:
        return Kind(hint.__args__[0], optional=False, many=True)
    return Kind(hint, optional=False, many=False)


# What stands for a file or folder in the help, see `flag`.
_PATHS = ("DIR", "FILE", "PATH", "CKPT", "RUN", "PICTURES", "TABLE")


class Setting(NamedTuple):
    """One setting of a record, by all that is known of it."""

    name: str
    kind: Kind
    default: Any
    metadata: Mapping[str, Any]  # see `flag`
    group: str  # the title under which help lists it

    @property
    def is_path(self) -> bool:
        """Whether the value names a file or folder."""
        return self.metadata["metavar"] in _PATHS

    def completed(self, value: Any) -> Any:
        """`value` as it is meant: in a path, a leading ~ is the home folder (shells leave --a=~/b)."""
        return os.path.expanduser(value) if self.is_path and isinstance(value, str) else value


def settings_of(record: type) -> Dict[str, Setting]:
    """The settings of a dataclass whose fields are `flag`s, by name, in their order."""
    hints = typing.get_type_hints(record)
    title = (record.__doc__ or "").splitlines()[0].rstrip(".")
    return {
        field.name: Setting(field.name, kind_of(hints[field.name]), field.default, field.metadata, title)
        for field in dataclasses.fields(record)
    }


def from_plain(kind: Kind, value: Any) -> Any:
    """The setting that a JSON value stands for.

    Raises:
        ValueError: the value has another type; the text says which was expected.
    """
    if kind.many and isinstance(value, (list, tuple)):
        one = Kind(kind.base, optional=False, many=False)
        return tuple(from_plain(one, item) for item in value)
    if not kind.many:
        if value is None and kind.optional:
            return None
        if kind.base is float and type(value) is int:
            return float(value)
        if type(value) is kind.base:  # not isinstance: True would pass as a whole number
            return value
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
    expected = names[kind.base] + (" or null" if kind.optional else "")
    if kind.many:
        expected = "a list of strings"
    raise ValueError(f"must be {expected}")
