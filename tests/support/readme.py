"""The READMEs as data: their blocks of code, links and tables.

A comment before a block says what tests do with it: `<!-- test: run -->`, it is run as it stands;
`<!-- test: file NAME -->`, later blocks find it as the file NAME. Commands of the project in other
bash blocks are parsed.
"""

import fnmatch
import os
import re
from typing import NamedTuple

from tests.support.paths import ROOT

ENGLISH = "README.md"
LANGUAGES = (ENGLISH, "README.zh-CN.md")

_BLOCK = re.compile(r"(?:^<!-- test: ([^\n]*) -->\n+)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of code, in order."""

    test: str  # what the comment before it says, or ""
    language: str
    code: str


def text(language):
    with open(os.path.join(ROOT, language), encoding="utf-8") as file:
        return file.read()


def blocks(language):
    return [Block(test or "", kind, code) for test, kind, code in _BLOCK.findall(text(language))]


def all_code(language):
    return "".join(block.code for block in blocks(language))


def without_code(content):
    return _BLOCK.sub("", content)


def links(content):
    """Targets of Markdown links."""
    return re.findall(r"\]\(([^)\s]+)\)", content)


def anchor(heading):
    """The name under which a heading can be linked to."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def listed_files(language):
    """Patterns of the names in the table of files, whose capitals (STEP, R, JOB ...) stand for anything."""
    table = re.search(r"<!-- files -->(.*?)<!-- /files -->", text(language), re.DOTALL).group(1)
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    return [re.sub(r"[A-Z]+", "*", name) for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def is_listed(path, patterns):
    """Whether a file, given relative to the folder it lies in, is one of those listed."""
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)
