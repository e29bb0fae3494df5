"""pyproject.toml, requirements and constraints agree with each other and with the code."""

import importlib
import os
import re

import pytest
import tomli

import densenet_keras
from tests.support.paths import ROOT

with open(os.path.join(ROOT, "pyproject.toml"), "rb") as _file:
    PROJECT = tomli.load(_file)


def requirements(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        lines = [line.partition("#")[0].strip() for line in file]
    return [line for line in lines if line and not line.startswith("-")]


def package(requirement):
    return re.split(r"[<>=!~ ]", requirement)[0].lower().replace("_", "-")


def test_the_version_is_the_codes():
    attribute = PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    module, _, name = attribute.rpartition(".")
    assert getattr(importlib.import_module(module), name) == densenet_keras.__version__
    with open(os.path.join(ROOT, "CHANGELOG.md"), encoding="utf-8") as file:
        assert re.search(r"^## (.*)$", file.read(), re.MULTILINE).group(1) == densenet_keras.__version__


def test_the_console_entry_exists():
    for target in PROJECT["project"]["scripts"].values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_an_installed_project_needs_what_the_requirements_name():
    project = PROJECT["project"]
    assert sorted(project["dependencies"] + project["optional-dependencies"]["cpu"]) == sorted(
        requirements("requirements.txt")
    )
    # On an Ascend host the vendor brings TensorFlow, and its version is not ours to choose.
    assert not any("tensorflow" in requirement for requirement in project["dependencies"])


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_everything_that_is_required_is_pinned(name):
    pinned = {package(line) for line in requirements("constraints.txt")}
    assert {package(line) for line in requirements(name)} <= pinned
    assert all("==" in line for line in requirements("constraints.txt"))
    assert all("==" in line for line in requirements("requirements-lint.txt"))
