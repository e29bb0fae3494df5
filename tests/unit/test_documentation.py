"""Both READMEs against the code: flags, files, commands, links and tests that they name.

    python -m tests.unit.test_documentation

prints the flag tables of README.md as they should be, after a setting has changed.
"""

import glob
import json
import os
import re
import shlex

import pytest

from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import run_folder
from densenet_keras.commands import main as cli
from densenet_keras.data import record_index
from densenet_keras.launch import rank_logs, rendezvous
from densenet_keras.settings import arguments as options
from densenet_keras.settings import config as configuration
from densenet_keras.settings.config import ALL, GROUPS, fields, group_of
from densenet_keras.settings.rules import shown
from tests.support import readme
from tests.support.readme import ENGLISH, LANGUAGES

LETTERS = {"train": "T", "evaluate": "E", "finetune": "F"}
VALUES = {"README.md": ". Values: ", "README.zh-CN.md": "。取值："}
COMMAND_OF = {script: command for command, script in options.SCRIPTS.items()}


def _default(name):
    """The cell for a default; a dash where there is none or where it follows from other settings."""
    field = fields()[name]
    cells = []
    for command, value in [(None, field.default), *field.metadata["command_defaults"].items()]:
        script = f"{options.SCRIPTS[command]}: " if command else ""
        cells.append(script + ("–" if value in (None, "", ()) else f"`{shown(value)}`"))
    return "; ".join(cells)


def _row(name, meaning, language):
    """One line of the table of flags."""
    metadata = fields()[name].metadata
    spellings = ", ".join(f"`{spelling}`" for spelling in (f"--{name}", *metadata["aliases"]))
    commands = " ".join(LETTERS[command] for command in ALL if command in metadata["commands"])
    if metadata["choices"]:
        meaning += VALUES[language] + ", ".join(f"`{choice}`" for choice in metadata["choices"])
    return f"| {spellings} | {_default(name)} | {commands} | {meaning} |"


def _meaning(name):
    """The help text, with marks escaped that Markdown would act on."""
    return re.sub(r"([|*])", r"\\\1", fields()[name].metadata["help"])


def _tables():
    """The flag tables of README.md, by group."""
    return {
        group: [_row(name, _meaning(name), ENGLISH) for name in fields() if group_of(name) == group]
        for group in GROUPS
    }


def _flag_rows(language):
    """Flag to its line, as the README has it."""
    rows = {}
    for line in readme.text(language).splitlines():
        found = re.match(r"\| `--(\w+)`[^|]*\|[^|]*\| [TEF ]+ \|", line)
        if found:
            assert found.group(1) not in rows, f"{language} lists --{found.group(1)} twice"
            rows[found.group(1)] = line
    return rows


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_tables_hold_every_flag_in_the_order_of_the_settings(language):
    assert list(_flag_rows(language)) == [*fields(), options.CONFIG]


@pytest.mark.parametrize("name", fields())
def test_a_line_of_the_english_table_is_the_setting(name):
    hint = "python -m tests.unit.test_documentation prints the tables"
    assert _flag_rows(ENGLISH)[name] == _row(name, _meaning(name), ENGLISH), hint


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", fields())
def test_default_commands_and_values_of_a_flag_are_those_of_the_code(language, name):
    line = _flag_rows(language)[name]
    wanted = _row(name, "*", language)
    start, values = wanted.split("*")
    assert line.startswith(start)
    assert line.endswith(values)
    meaning = line[len(start) : len(line) - len(values)]
    assert len(meaning) > 2
    assert VALUES[language] not in meaning, "the setting has no such list of values"


def test_both_languages_have_the_same_blocks_of_code():
    blocks = [readme.blocks(language) for language in LANGUAGES]
    assert blocks[0] == blocks[1]
    assert len(blocks[0]) > 10


def test_both_languages_have_the_same_structure():
    """Headings of the same levels, tables of the same sizes, links to the same places."""
    shapes = []
    for language in LANGUAGES:
        prose = readme.without_code(readme.text(language))
        levels = re.findall(r"^(#+) ", prose, re.MULTILINE)
        tables = [line.count("|") for line in prose.splitlines() if line.startswith("|")]
        links = [link for link in readme.links(prose) if not link.startswith("#") and "README" not in link]
        shapes.append((levels, tables, sorted(links)))
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_link_leads_somewhere(language):
    content = readme.text(language)
    anchors = {readme.anchor(heading) for heading in re.findall(r"^#+ (.*)$", content, re.MULTILINE)}
    for link in readme.links(readme.without_code(content)):
        if link.startswith("#"):
            assert link[1:] in anchors, f"{language}: no heading {link}"
        elif not re.match(r"https?://", link):
            assert os.path.exists(os.path.join(readme.ROOT, link)), f"{language}: no file {link}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_file_of_the_project_that_is_named_exists(language):
    path = r"`((?:densenet_keras|tests|scripts|examples|benchmarks|docs)/[\w./-]*)(?:::\w+)?`"
    named = re.findall(path, readme.text(language))
    assert len(named) > 20
    missing = sorted({path for path in named if not os.path.exists(os.path.join(readme.ROOT, path))})
    assert not missing


@pytest.mark.parametrize("language", LANGUAGES)
def test_modules_in_the_layout_exist(language):
    table = re.split(r"`densenet_keras/`[^\n]*\n\n", readme.text(language), maxsplit=1)[1].split("\n\n", 1)[0]
    named = re.findall(r"`([\w./]+)`", table)
    assert len(named) > 30
    for name in named:
        package = os.path.join(readme.ROOT, "densenet_keras")
        folders = [package, *glob.glob(package + "/*/"), *glob.glob(package + "/*/*/")]
        places = [os.path.join(folder, name) for folder in folders]
        files = [*(place + ".py" for place in places), *(p + "/__init__.py" for p in places)]
        assert any(os.path.isfile(file) for file in files), name


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_test_that_a_promise_names_exists(language):
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", readme.text(language))
    assert len(named) > 10
    for path, name in named:
        with open(os.path.join(readme.ROOT, path), encoding="utf-8") as file:
            assert f"def {name}(" in file.read(), f"{path} has no {name}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_files_that_a_run_writes_are_listed(language):
    """The names as the code has them; that there are no others is seen where runs are made."""
    listed = readme.listed_files(language)
    names = [
        run_folder.RUN_JSON, "evaluate.json", "plan.json", "metrics.jsonl", "rank_table.json",
        configuration.Config().run.log_name, checkpoint_files.STATE_FILE,
        f"{checkpoint_files.BASENAME}-5000.index", f"{checkpoint_files.BASENAME}-5000.data-00000-of-00001",
        f"{rank_logs.FOLDER}/rank_7.log", f"{rendezvous.FOLDER}/job/rank_1.json",
        f"{record_index.FOLDER}/train.npz", f"{record_index.FOLDER}/validation.npz",
    ]  # fmt: skip
    assert [name for name in names if not readme.is_listed(name, listed)] == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("code", ["0", "1", "2", "130", "143"])
def test_exit_codes_are_listed(language, code):
    assert re.search(rf"^\| {code} \|", readme.text(language), re.MULTILINE)


def _project_commands():
    """(environment, script, arguments) of every call of a command of the project."""
    found = []
    for block in readme.blocks(ENGLISH):
        if block.language != "bash":
            continue
        for line in block.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            scripts = [word for word in words if word in COMMAND_OF]
            if scripts:
                place = words.index(scripts[0])
                environ = dict(word.split("=", 1) for word in words[:place] if re.match(r"[A-Z_]+=", word))
                found.append((environ, scripts[0], words[place + 1 :]))
    return found


def test_commands_are_found():
    scripts = [script for _, script, _ in _project_commands()]
    assert set(scripts) == set(COMMAND_OF)
    assert len(scripts) > 12


@pytest.mark.parametrize(("environ", "script", "arguments"), _project_commands())
def test_every_command_is_one_that_the_command_line_takes(environ, script, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "--config" in arguments:
        file = tmp_path / arguments[arguments.index("--config") + 1]
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(configuration.Config().to_json()))
    cli.parse(COMMAND_OF[script], arguments, environ)


def test_make_targets_exist():
    with open(os.path.join(readme.ROOT, "Makefile"), encoding="utf-8") as file:
        targets = re.findall(r"^(\w+):", file.read(), re.MULTILINE)
    named = re.findall(r"^make (\w+)", readme.all_code(ENGLISH), re.MULTILINE)
    assert {"setup", "demo", "test"} <= set(named) <= set(targets)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_licence_is_named_only_if_there_is_one(language):
    named = re.search(r"licen[cs]e|许可证", readme.text(language), re.IGNORECASE)
    assert bool(named) == os.path.exists(os.path.join(readme.ROOT, "LICENSE"))


if __name__ == "__main__":
    for group, rows in _tables().items():
        print(f"\n{group}\n" + "\n".join(rows))
