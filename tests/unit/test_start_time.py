"""What is imported before the first guest starts: each module delays it."""

import subprocess
import sys

import pytest

from quizmatrix.core import later


def test_what_is_needed_after_the_start_is_not_imported_before() -> None:
    late = (
        "quizmatrix.subtests.reading",
        "quizmatrix.runs.history.record",
        "quizmatrix.report.ending",
        "sqlite3",
    )
    code = f"import sys, quizmatrix.matrixrun.run; print([name for name in {late} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_it_is_imported_while_a_guest_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    later.wanted("colorsys")
    assert "colorsys" not in sys.modules
    later.load()
    assert "colorsys" in sys.modules
