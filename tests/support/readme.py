"""README and docs as data: their blocks of code, links and tables.

A comment before a block says what tests do with it: `<!-- test: run -->`, it is run as it stands;
`<!-- test: file NAME -->`, later blocks find it as the file NAME. Commands of the project in other
bash blocks are parsed.
"""

import fnmatch
import glob
import os
import re
from typing import NamedTuple

from tests.support.paths import ROOT

README = ("README.md", "README.zh-CN.md")
FLAGS = ("docs/flags.md", "docs/zh-CN/flags.md")
FILES = ("docs/files.md", "docs/zh-CN/files.md")


def _in_docs(pattern):
    found = glob.glob(os.path.join(ROOT, "docs", *pattern))
    return sorted(os.path.relpath(path, ROOT).replace(os.sep, "/") for path in found)


# Everything a user reads, the README first; and the documents that exist in both languages.
ENGLISH = ("README.md", *_in_docs(["*.md"]), "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
PAIRS = (README, *((path.replace("zh-CN/", ""), path) for path in _in_docs(["zh-CN", "*.md"])))
ALL = (*ENGLISH, *(chinese for _, chinese in PAIRS))

_BLOCK = re.compile(r"(?:^<!-- test: ([^\n]*) -->\n+)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of code, in order."""

    test: str  # what the comment before it says, or ""
    language: str
    code: str


def text(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def blocks(path):
    return [Block(test or "", kind, code) for test, kind, code in _BLOCK.findall(text(path))]


def all_code(paths):
    return "".join(block.code for path in paths for block in blocks(path))


def without_code(content):
    return _BLOCK.sub("", content)


def links(content):
    """Targets of Markdown links."""
    return re.findall(r"\]\(([^)\s]+)\)", content)


def anchor(heading):
    """The name under which a heading can be linked to."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def listed_files(path):
    """Patterns of the names in the table of files, whose capitals (STEP, R, JOB ...) stand for anything."""
    table = re.search(r"<!-- files -->(.*?)<!-- /files -->", text(path), re.DOTALL).group(1)
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    return [re.sub(r"[A-Z]+", "*", name) for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def is_listed(path, patterns):
    """Whether a file, given relative to the folder it lies in, is one of those listed."""
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)
