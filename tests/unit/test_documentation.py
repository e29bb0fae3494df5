"""README and docs against the code: flags, files, commands, links and tests that they name.

    python -m tests.unit.test_documentation

prints the tables of flags as they should be, after a setting has changed.
"""

import glob
import importlib
import itertools
import json
import os
import re
import shlex

import pytest

from densenet_keras import schedule
from densenet_keras.backends.ascend import loop_plan
from densenet_keras.checkpoints import files as checkpoint_files
from densenet_keras.checkpoints import manifest, run_folder
from densenet_keras.commands import main as cli
from densenet_keras.data import record_index
from densenet_keras.launch import rank_logs, rendezvous
from densenet_keras.settings import config as configuration
from densenet_keras.settings import programs
from densenet_keras.settings.arguments import parse_tool
from densenet_keras.settings.config import ALL, GROUPS, fields, group_of
from densenet_keras.settings.rules import shown
from tests.support import readme
from tests.support.readme import ALL as DOCUMENTS
from tests.support.readme import ENGLISH, FILES, FLAGS, PAIRS, README

LETTERS = {"train": "T", "evaluate": "E", "finetune": "F"}
VALUES = dict(zip(FLAGS, (". Values: ", "。取值：")))
SHELL = ("|", ">", ">>", "&&", ";", "...")  # where the words of a command end
COMMAND_OF = {script: command for command, script in programs.SCRIPTS.items()}


def _default(name):
    """The cell for a default; a dash where there is none or where it follows from other settings."""
    field = fields()[name]
    cells = []
    for command, value in [(None, field.default), *field.metadata["command_defaults"].items()]:
        script = f"{programs.SCRIPTS[command]}: " if command else ""
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
    """The flag tables of docs/flags.md, by group."""
    return {
        group: [_row(name, _meaning(name), FLAGS[0]) for name in fields() if group_of(name) == group]
        for group in GROUPS
    }


def _tool_rows(name):
    """The lines of the table of a tool's flags, as docs have it between marks."""
    tool = importlib.import_module(f"densenet_keras.{cli.tools()[name].module}")
    rows = []
    for setting in programs.tool(name, tool.Settings, tool.EXAMPLE).settings.values():
        spelling = setting.metadata["metavar"] if setting.metadata["positional"] else f"--{setting.name}"
        default = "–" if setting.default in (None, "", ()) else f"`{shown(setting.default)}`"
        rows.append(f"| `{spelling}` | {default} | {setting.metadata['help']} |")
    return rows


def _marked_tables():
    """Name of a tool to the lines between its marks."""
    marks = r"<!-- flags: (\w+) -->\n\n\|[^\n]*\n\|[-|]*\n(.*?)\n\n<!-- /flags -->"
    return {name: rows for path in ENGLISH for name, rows in re.findall(marks, readme.text(path), re.DOTALL)}


@pytest.mark.parametrize("name", ["check", "confirm", "import", "prepare"])
def test_the_table_of_a_tool_is_its_settings(name):
    hint = "python -m tests.unit.test_documentation prints the tables"
    assert _marked_tables()[name].splitlines() == _tool_rows(name), hint


def _flag_rows(language):
    """Flag to its line, as the README has it."""
    rows = {}
    for line in readme.text(language).splitlines():
        found = re.match(r"\| `--(\w+)`[^|]*\|[^|]*\| [TEF ]+ \|", line)
        if found:
            assert found.group(1) not in rows, f"{language} lists --{found.group(1)} twice"
            rows[found.group(1)] = line
    return rows


@pytest.mark.parametrize("language", FLAGS)
def test_the_tables_hold_every_flag_in_the_order_of_the_settings(language):
    assert list(_flag_rows(language)) == [*fields(), programs.CONFIG]


@pytest.mark.parametrize("name", fields())
def test_a_line_of_the_english_table_is_the_setting(name):
    hint = "python -m tests.unit.test_documentation prints the tables"
    assert _flag_rows(FLAGS[0])[name] == _row(name, _meaning(name), FLAGS[0]), hint


@pytest.mark.parametrize("language", FLAGS)
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


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0])
def test_both_languages_have_the_same_blocks_of_code(pair):
    blocks = [readme.blocks(path) for path in pair]
    assert blocks[0] == blocks[1]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0])
def test_both_languages_have_the_same_structure(pair):
    """Headings of the same levels, tables of the same sizes."""
    shapes = []
    for path in pair:
        prose = readme.without_code(readme.text(path))
        levels = re.findall(r"^(#+) ", prose, re.MULTILINE)
        tables = [len(table.splitlines()) for table in re.findall(r"(?:^\|.*\n)+", prose, re.MULTILINE)]
        shapes.append((levels, tables))
    assert shapes[0] == shapes[1]


def test_the_readme_is_read_to_the_end():
    assert all(readme.text(path).count("\n") <= 200 for path in README)


@pytest.mark.parametrize("path", DOCUMENTS)
def test_every_link_leads_somewhere(path):
    content = readme.text(path)
    anchors = {readme.anchor(heading) for heading in re.findall(r"^#+ (.*)$", content, re.MULTILINE)}
    folder = os.path.join(readme.ROOT, os.path.dirname(path))
    for link in readme.links(readme.without_code(content)):
        if link.startswith("#"):
            assert link[1:] in anchors, f"{path}: no heading {link}"
        elif not re.match(r"https?://", link):
            assert os.path.exists(os.path.join(folder, link)), f"{path}: no file {link}"


def test_every_document_is_linked_from_the_readme():
    for readme_path, documents in zip(README, (ENGLISH, [chinese for _, chinese in PAIRS])):
        linked = set(readme.links(readme.text(readme_path)))
        assert set(documents) - {*README} <= linked


@pytest.mark.parametrize("path", DOCUMENTS)
def test_every_file_of_the_project_that_is_named_exists(path):
    named = re.findall(
        r"`((?:densenet_keras|tests|scripts|examples|benchmarks|docs)/[\w./-]*)(?:::\w+)?`", readme.text(path)
    )
    missing = sorted({name for name in named if not os.path.exists(os.path.join(readme.ROOT, name))})
    assert not missing


def test_modules_in_the_layout_exist():
    table = re.split(r"`densenet_keras/`[^\n]*\n\n", readme.text("CONTRIBUTING.md"), maxsplit=1)[1]
    named = re.findall(r"`([\w./]+)`", table.split("\n\n", 1)[0])
    assert len(named) > 30
    package = os.path.join(readme.ROOT, "densenet_keras")
    folders = [package, *glob.glob(package + "/*/"), *glob.glob(package + "/*/*/")]
    for name in named:
        places = [os.path.join(folder, name) for folder in folders]
        files = [*(place + ".py" for place in places), *(p + "/__init__.py" for p in places)]
        assert any(os.path.isfile(file) for file in files), name


@pytest.mark.parametrize("path", ENGLISH)
def test_every_test_that_a_promise_names_exists(path):
    for file_name, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", readme.text(path)):
        with open(os.path.join(readme.ROOT, file_name), encoding="utf-8") as file:
            assert f"def {name}(" in file.read(), f"{file_name} has no {name}"


def test_promises_name_tests():
    assert len(re.findall(r"`tests/[\w/]+\.py::\w+`", readme.text("docs/reliability.md"))) > 10


@pytest.mark.parametrize("path", FILES)
def test_files_that_a_run_writes_are_listed(path):
    """The names as the code has them; that there are no others is seen where runs are made."""
    listed = readme.listed_files(path)
    names = [
        run_folder.RUN_JSON, "evaluate.json", "plan.json", "metrics.jsonl", "rank_table.json",
        configuration.Config().run.log_name, checkpoint_files.STATE_FILE,
        f"{checkpoint_files.BASENAME}-5000.index", f"{checkpoint_files.BASENAME}-5000.data-00000-of-00001",
        f"{checkpoint_files.BASENAME}-5000{manifest.ENDING}",
        f"{rank_logs.FOLDER}/rank_7.log", f"{rendezvous.FOLDER}/job/rank_1.json",
        f"{record_index.FOLDER}/train.npz", f"{record_index.FOLDER}/validation.npz",
    ]  # fmt: skip
    assert [name for name in names if not readme.is_listed(name, listed)] == []


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("code", ["0", "1", "2", "130", "143"])
def test_exit_codes_are_listed(path, code):
    assert re.search(rf"^\| {code} \|", readme.text(path), re.MULTILINE)


def _project_commands():
    """(environment, command, arguments) of every call of a command of the project."""
    found = []
    for block in [block for path in ENGLISH for block in readme.blocks(path)]:
        if block.language != "bash":
            continue
        for line in block.code.replace("\\\n", " ").splitlines():
            call = re.search(r"-m densenet_keras\b|\b(train_keras|evaluate|finetune)\.py\b", line)
            if not call or line.lstrip().startswith("#"):
                continue
            words = shlex.split(line, comments=True)
            environ = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
            if call.group().startswith("-m"):
                command, *arguments = words[words.index("densenet_keras") + 1 :]
            else:
                place = next(number for number, word in enumerate(words) if word.endswith(call.group()))
                command, arguments = COMMAND_OF[call.group()], words[place + 1 :]
            arguments = list(itertools.takewhile(lambda word: word not in SHELL, arguments))
            found.append((environ, command, arguments))
    return found


def test_commands_are_found():
    named = [command for _, command, _ in _project_commands()]
    assert set(named) >= {*COMMAND_OF.values(), *cli.tools()}
    assert len(named) > 12


@pytest.mark.parametrize(("environ", "command", "arguments"), _project_commands())
def test_every_command_is_one_that_the_command_line_takes(environ, command, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if command in cli.tools():
        tool = importlib.import_module(f"densenet_keras.{cli.tools()[command].module}")
        assert parse_tool(command, tool.Settings, tool.EXAMPLE, arguments)
        return
    if "--config" in arguments:
        file = tmp_path / arguments[arguments.index("--config") + 1]
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(configuration.Config().to_json()))
    cli.parse(command, arguments, environ)


def test_imagenet_as_documented_runs_on_npus_in_loops_only():
    """Those for a whole training; a single step would be another graph, and a session.run of its own."""
    found = 0
    for _, command, arguments in _project_commands():
        if command == "train" and {"--max_epochs", "--rank_size", "/data/imagenet"} <= {*arguments}:
            config = cli.parse(command, [*arguments, "--backend", "ascend", "--log_dir", "none"])
            chosen = loop_plan.choose(schedule.plan(config, 1281167, 50000), 0)
            assert (chosen.loops, chosen.single_steps) == (900, 0)
            found += 1
    assert found >= 2


def test_make_targets_exist():
    with open(os.path.join(readme.ROOT, "Makefile"), encoding="utf-8") as file:
        targets = re.findall(r"^(\w+):", file.read(), re.MULTILINE)
    named = re.findall(r"^make (\w+)", readme.all_code(ENGLISH), re.MULTILINE)
    assert {"setup", "demo", "test"} <= set(named) <= set(targets)


@pytest.mark.parametrize("path", README)
def test_a_licence_is_named_only_if_there_is_one(path):
    named = re.search(r"licen[cs]e|许可证", readme.text(path), re.IGNORECASE)
    assert bool(named) == os.path.exists(os.path.join(readme.ROOT, "LICENSE"))


if __name__ == "__main__":
    tools = {name: _tool_rows(name) for name in _marked_tables()}
    for group, rows in {**_tables(), **tools}.items():
        print(f"\n{group}\n" + "\n".join(rows))
