"""The shape of the package: imports go one way, and nothing grows without notice."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import quizmatrix
from quizmatrix.model.arch import arch_names

PACKAGE = Path(quizmatrix.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = ["quizmatrix", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_of(path) for path in SOURCES}


def imported(tree: ast.Module) -> Iterator[str]:
    """The modules of ours that are imported when this one is."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


GRAPH = {
    module_of(path): {name for name in imported(ast.parse(path.read_text())) if name in MODULES}
    for path in SOURCES
}


def test_imports_have_no_cycle() -> None:
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for needed in GRAPH[module]:
                visit(needed, (*above, module))
            done.add(module)

    for module in GRAPH:
        visit(module, ())


def test_only_the_command_line_knows_the_command_line() -> None:
    for module, needed in GRAPH.items():
        if not module.startswith(("quizmatrix.cli", "quizmatrix.__main__")):
            assert not [name for name in needed if name.startswith("quizmatrix.cli")], module


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_house_rules(path: Path) -> None:
    text = path.read_text()
    name = str(path.relative_to(PACKAGE))
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
            assert "subprocess" not in names or name == "core/process.py"
        if isinstance(node, ast.ImportFrom):
            assert node.module not in ("subprocess", "sys"), "the checks here would not see its names"
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.exit", "os._exit"):
            assert name.startswith("cli/")
        if isinstance(node, ast.Attribute) and node.attr in ("create_task_group", "run_sync"):
            assert name == "core/concurrency.py", (
                "an error would leave it wrapped, or nobody would stop waiting"
            )
        if isinstance(node, ast.Compare):
            compared = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            assert not set(arch_names()) & {value for value in compared if isinstance(value, str)}
