"""docs/contributing.md: its table of packages is the order that import-linter checks."""

import re
import tomllib
from pathlib import Path

TOP = Path(__file__).parents[2]


def test_the_table_of_packages() -> None:
    linted = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in linted if contract["type"] == "layers")
    table = (TOP / "docs/contributing.md").read_text().partition("| package |")[2].partition("\n\n")[0]
    rows = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in table.splitlines()[2:]]
    assert rows == [layer.split(" | ") for layer in reversed(layers)]
