"""Limits on the size of modules, functions and classes. import-linter checks the imports."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

import quizmatrix
from quizmatrix.model.arch import arch_names

PACKAGE = Path(quizmatrix.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_house_rules(path: Path) -> None:
    text = path.read_text()
    name = str(path.relative_to(PACKAGE))
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, node.name
        if isinstance(node, ast.ClassDef):
            fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
            methods = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            assert len(methods) <= 15, node.name
            # One with more is the image of a file or of a table, and says so.
            says_why = re.search("(?:a|one) field for each", ast.get_docstring(node) or "")
            assert len(fields) <= 12 or says_why, node.name
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
            assert "subprocess" not in names or name == "core/process.py"
        if isinstance(node, ast.ImportFrom):
            assert node.module not in ("subprocess", "sys"), "the checks here would not see its names"
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.exit", "os._exit"):
            # What it forks must not return into the code of its parent.
            assert name.startswith("cli/") or name == "core/forking.py"
        if isinstance(node, ast.Attribute) and node.attr in ("create_task_group", "run_sync"):
            assert name == "core/concurrency.py", (
                "an error would leave it wrapped, or nobody would stop waiting"
            )
        if isinstance(node, ast.Compare):
            compared = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            assert not set(arch_names()) & {value for value in compared if isinstance(value, str)}


def test_no_two_classes_have_one_name() -> None:
    """Wherever a class is imported, its name says what it is. Names of types (`Row = dict[...]`) count."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        names = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                names += [name] if name[0].isupper() and not name.isupper() else []
        for name in names:
            found[name].append(str(path.relative_to(PACKAGE)))
    assert {name: places for name, places in found.items() if len(places) > 1} == {}
