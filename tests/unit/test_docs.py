"""The generated documents are up to date with the code."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import quizmatrix
from docs.generate import DOCS, commands_of, generated
from quizmatrix import api
from quizmatrix.cli.parser import parser as whole_command_line
from tests.made_run import handoff_run, hostile_run

FILES = generated()
OLD = sorted((Path(__file__).parent / "results").glob("*.json"))


@pytest.mark.parametrize("name", FILES)
def test_what_is_generated_is_current(name: str) -> None:
    assert (DOCS / name).read_bytes() == FILES[name], "make docs"


def test_every_option_has_its_help() -> None:
    for command in commands_of(whole_command_line()):
        for group in command.groups:
            assert all(text for _, text in group.options), (command.name, group)


@pytest.mark.parametrize("name", ["command-line.md", "quizmatrix.1"])
def test_the_command_line_is_described_whole(name: str) -> None:
    """Every command and option; every variable of ours that the code names."""
    text = FILES[name].decode().replace(r"\-", "-")
    parsers = [whole_command_line()]
    while parsers:
        for action in parsers.pop()._actions:
            if isinstance(action.choices, dict):
                parsers += action.choices.values()
                assert all(one._subparsers or one.prog in text for one in action.choices.values())
            else:
                assert all(word in text for word in action.option_strings if word not in ("-h", "--help"))
    sources = Path(quizmatrix.__file__).parent.rglob("*.py")
    variables = {name for path in sources for name in re.findall(r"QUIZMATRIX_[A-Z_]+", path.read_text())}
    assert not [name for name in variables if name not in text and not name.endswith("_")]


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_the_man_page_is_well_formed() -> None:
    """groff warns of nothing, and no line is lost."""
    argv = ["groff", "-man", "-ww", "-Tutf8", "-P-bc", "-rLL=500n"]
    done = subprocess.run(argv, input=FILES["quizmatrix.1"], capture_output=True, check=True)
    assert done.stderr == b""
    page = done.stdout.decode()
    for line in ("run [MATRIX] [OPTION]... -- COMMAND [ARG]...", "--only '*-s390x'", "EXIT STATUS"):
        assert line in page


def test_the_library_is_described_whole() -> None:
    page = (DOCS / "api.md").read_text() + (DOCS / "example.py").read_text()
    assert not [name for name in api.__all__ if not re.search(rf"\b{name}\b", page)]


def test_the_library_reads_a_run_directory(tmp_path: Path) -> None:
    results = api.load_run(api.find_run(str(hostile_run(tmp_path / "run"))))
    assert {cell.cell: cell.outcome for cell in results.cells}["6.1-s390x"] is api.Outcome.FAILED


def valid(results: Any) -> None:
    jsonschema.validate(results, json.loads(FILES["results.schema.json"]))


@pytest.mark.parametrize("make", [hostile_run, handoff_run])
def test_results_follow_the_schema(make: Any, tmp_path: Path) -> None:
    valid(json.loads((make(tmp_path / "run") / "results.json").read_bytes()))


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_results_of_an_earlier_version_follow_the_schema(path: Path) -> None:
    valid(json.loads(path.read_bytes()))


def test_every_key_of_the_results_is_described() -> None:
    page = (DOCS / "results.md").read_text()
    described = {
        name for row in re.findall(r"^\| (`.*?) \|", page, re.M) for name in re.findall(r"`(\w+)`", row)
    }
    parts = json.loads(FILES["results.schema.json"])["$defs"]
    assert {*parts["RunResults"]["properties"], *parts["CellResult"]["properties"]} <= described


def test_the_schema_tells_what_is_wrong() -> None:
    results = json.loads(OLD[0].read_bytes())
    results["cells"][0]["outcome"] = "splatted"
    with pytest.raises(jsonschema.ValidationError, match="'splatted' is not one of"):
        valid(results)
    del results["cells"], results["run"]
    with pytest.raises(jsonschema.ValidationError, match="'run' is a required property"):
        valid(results)
