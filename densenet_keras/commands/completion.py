"""`python -m densenet_keras completion`: commands, flags and values at the tab key, in bash and zsh."""

from __future__ import annotations

import dataclasses
import importlib
import shlex
from typing import Any, Dict, Iterable, List

from densenet_keras.commands import main
from densenet_keras.errors import EXIT_DONE
from densenet_keras.settings import programs
from densenet_keras.settings.setting import flag

EXAMPLE = "bash"
PROGRAM = "densenet-keras"  # the console entry of pyproject.toml


@dataclasses.dataclass(frozen=True)
class Completion:
    """Completion

    Prints a script that completes commands, flags and their values; append it to ~/.bashrc or ~/.zshrc.
    """

    shell: str = flag("", "bash or zsh", choices=("bash", "zsh"), positional=True, metavar="SHELL")


Settings = Completion


def run(settings: Completion) -> int:
    """Prints the script; returns the exit code."""
    print(script(settings.shell))
    return EXIT_DONE


def script(shell: str) -> str:
    """What the shell runs once, made from the settings of all commands."""
    commands = _commands()
    by_file = [f"    {file}) command={name} ;;" for name, file in programs.SCRIPTS.items()]
    values = [line for name, described in commands.items() for line in _values(name, described)]
    flags = [f"      {name}) words={_words(_flags(described))} ;;" for name, described in commands.items()]
    # zsh runs completions of bash, given this.
    head = ["autoload -U +X compinit bashcompinit && compinit && bashcompinit"] if shell == "zsh" else []
    return "\n".join(
        [
            *head,
            "_densenet_keras() {",
            '  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" command="" words=""',
            '  case "${COMP_WORDS[0]##*/}" in',
            *by_file,
            '    *) [ "$COMP_CWORD" -gt 1 ] && command="${COMP_WORDS[1]}" ;;',
            "  esac",
            '  if [ "$cur" = "=" ]; then cur=""',
            '  elif [ "$prev" = "=" ]; then prev="${COMP_WORDS[COMP_CWORD-2]}"; fi',
            '  case "$command $prev" in',
            *values,
            "  esac",
            f'  if [ -z "$command" ]; then words={_words(commands)}',
            '  elif [ -z "$words" ]; then',
            '    case "$cur" in -*) case "$command" in',
            *flags,
            "    esac ;; esac",
            "  fi",
            '  COMPREPLY=($(compgen -W "$words" -- "$cur"))',
            "}",
            # -o default: where nothing is known, names of files
            f"complete -o default -F _densenet_keras {' '.join([PROGRAM, *programs.SCRIPTS.values()])}",
        ]
    )


def _commands() -> Dict[str, programs.Program]:
    """The command line of every command, by name."""
    described = {name: programs.program(name) for name in programs.SCRIPTS}
    for name, tool in main.tools().items():
        module: Any = importlib.import_module(f"densenet_keras.{tool.module}")
        described[name] = programs.tool(name, module.Settings, module.EXAMPLE)
    return described


def _flags(described: programs.Program) -> List[str]:
    named = [f"--{s.name}" for s in described.settings.values() if not s.metadata["positional"]]
    return [*named, *(["--config", "--help_all"] if described.takes_config else []), "--help", "--version"]


def _values(name: str, described: programs.Program) -> List[str]:
    """Lines that give the values of each flag that has a list of them."""
    lines = []
    for setting in described.settings.values():
        choices = setting.metadata["choices"] or (("true", "false") if setting.kind.base is bool else ())
        if choices:
            before = name if setting.metadata["positional"] else f"--{setting.name}"
            lines.append(f"    {shlex.quote(f'{name} {before}')}) words={_words(choices)} ;;")
    return lines


def _words(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))
