"""docs/ascend.md against the code: the modules and tests that its table of facts names."""

import os
import re

import pytest

from densenet_keras.backends.ascend.host import HOST
from tests.support.paths import ROOT


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


def facts():
    """(fact, modules, tests) as the table has them."""
    after = read("docs", "ascend.md").partition("## Facts and where they are honoured")[2]
    section = after.partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] != "Fact relied on"]


def quoted(cell):
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("row", facts(), ids=lambda row: row[0][:40])
def test_a_fact_names_modules_and_tests_that_exist(row):
    fact, modules, tests = row
    for module in quoted(modules):
        assert any(
            os.path.exists(os.path.join(ROOT, *folder, module)) for folder in (["densenet_keras"], [])
        ), f"{fact}: no {module}"
    assert quoted(tests), f"{fact}: no test"
    source = ""
    for name in quoted(tests):
        if name.endswith(".py"):
            source = read("tests", name)
        elif name.startswith("test_"):
            assert f"def {name}(" in source, f"{fact}: no {name}"


@pytest.mark.parametrize("folder", [(), ("zh-CN",)])
def test_the_lines_of_confirm_are_those_of_the_code(folder):
    sections = read("docs", *folder, "ascend.md").split("\n## ")
    section = next(text for text in sections if "densenet_keras confirm --data_dir" in text)
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", section, re.MULTILINE)
    lines = HOST.confirmation().lines
    assert [name for name, _ in rows] == [line.name for line in lines]
    if not folder:
        assert [claim.replace("`", "") for _, claim in rows] == [line.claim for line in lines]


def test_there_are_facts():
    assert len(facts()) > 20
