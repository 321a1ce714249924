"""docs/contributing.md: what its recipes speak of is there, and what they add can be imported."""

import re
import textwrap
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs/contributing.md").read_text()

# What the recipes add.
ADDED = re.compile(r"i386|loglevel|formats/csv|collection|memory-leak|NAME|\*")

PATHS = sorted(set(re.findall(r"`((?:arch|docs|guest|kernel-configs|quizmatrix|tests)/[\w./*-]+)`", PAGE)))
NAMES = re.findall(r"`([A-Za-z_]+)`\s+(?:in|of)\s+`((?:quizmatrix|tests)/[\w./]+)`", PAGE)
MODULES = [
    textwrap.dedent(block)
    for block in re.findall(r'^    ```python\n(    """.*?)^    ```', PAGE, re.DOTALL | re.MULTILINE)
]


def test_the_table_of_packages() -> None:
    linted = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in linted if contract["type"] == "layers")
    table = PAGE.partition("| package |")[2].partition("\n\n")[0]
    rows = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in table.splitlines()[2:]]
    assert rows == [layer.split(" | ") for layer in reversed(layers)]


def test_paths() -> None:
    there = [path for path in PATHS if not ADDED.search(path)]
    assert len(there) > 20
    assert not [path for path in there if not (TOP / path).exists()]


@pytest.mark.parametrize(("name", "path"), NAMES)
def test_names(name: str, path: str) -> None:
    assert re.search(rf"\b{name}\b", (TOP / path).read_text())


def test_there_are_names() -> None:
    assert len(NAMES) > 8


@pytest.mark.parametrize("module", MODULES)
def test_a_module_that_a_recipe_adds(module: str) -> None:
    names: dict[str, object] = {"__name__": "added"}
    exec(compile(module, "docs/contributing.md", "exec"), names)  # noqa: S102 - our own
    assert {"render", "SOURCE"} & set(names)


def test_two_recipes_add_a_module() -> None:
    assert len(MODULES) == 2
