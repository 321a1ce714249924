"""Whether a command heeds the lists of tests that it is given (see model/testchoice.py)."""

from __future__ import annotations

from pathlib import Path

# The line in its output that says so, and among how many bytes at the beginning it is looked for.
SELECTS_TESTS = b"# quizmatrix: selects tests"
_BEGINNING = 1 << 20


def selects_tests(folder: Path) -> bool:
    """Whether the command in a cell's folder said that it heeds the lists of tests that it is given."""
    try:
        with (folder / "stdout").open("rb") as file:
            data = file.read(_BEGINNING)
    except OSError:
        return False
    return SELECTS_TESTS in (line.rstrip() for line in data.splitlines())
