"""Comparing two runs: what is reported, and what is not."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from quizmatrix.cli import run_command
from quizmatrix.model.finding import FindingKind, FindingSummary
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.report import chart, compare
from quizmatrix.report.compare import Change
from quizmatrix.report.grid import grid, notes
from quizmatrix.runs import directory
from quizmatrix.runs.history import database
from quizmatrix.runs.history.kept import Point, RecordedRun
from quizmatrix.runs.history.record import History
from tests.unit.test_history import result, seed, state

__all__ = ["state"]  # a fixture

OLD = [
    result("6.1-x86_64", inputs="a"),
    result("6.1-s390x", inputs="b"),
    result("6.12-x86_64", "failed", inputs="c"),
    result("6.12-s390x", "failed", inputs="d"),
    result("5.10-x86_64", "failed", inputs="e"),
    result("5.10-s390x", inputs="f"),
    result("newest-x86_64", inputs="g"),
    result("newest-s390x", "failed", expected=Outcome.FAILED),
]
NEW = [
    result("6.1-x86_64", inputs="a"),
    result("6.1-s390x", "panicked", inputs="b2"),
    result("6.12-x86_64", inputs="c2"),
    result("6.12-s390x", "timed-out", inputs="d2"),
    result("5.10-x86_64", inputs="e"),
    result("7.1-x86_64"),
    result("newest-x86_64", "cancelled"),
    result("newest-s390x", "failed", expected=Outcome.FAILED),
]
SECTIONS = """\
regressed
  6.1-s390x  passed -> panicked

fixed
  6.12-x86_64  failed (1) -> passed

new
  7.1-x86_64  passed

still failing
  6.12-s390x  failed (1) -> timed-out

flaky
  5.10-x86_64  failed (1) -> passed

not tested
  newest-x86_64  passed -> cancelled

gone
  5.10-s390x  passed
"""


def test_cells(capsys: pytest.CaptureFixture[str]) -> None:
    seed(1, OLD)
    # Runs with another command or matrix are not compared with.
    seed(2, NEW, command=["other"])
    seed(3, NEW, matrix="endian")
    seed(4, NEW, folder="/elsewhere")
    seed(5, NEW)
    assert run_command(["runs", "compare"]) == 1
    out = capsys.readouterr().out
    assert out == f"20261102-120000-0001 -> 20261106-120000-0005: ./t\n\n{SECTIONS}"
    assert run_command(["runs", "compare", "20261106", "20261102"]) == 1
    assert "6.1-s390x  panicked -> passed" in capsys.readouterr().out
    assert run_command(["runs", "compare", "--json", "-"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["cells"][0]["change"] == "regressed"


def test_nothing_has_changed(capsys: pytest.CaptureFixture[str]) -> None:
    seed(1, [result("6.1-s390x")])
    assert run_command(["runs", "compare"]) == 125
    assert "there is no run to compare 20261102-120000-0001 with" in capsys.readouterr().err
    seed(2, [result("6.1-s390x")])
    assert run_command(["runs", "compare"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == ["Nothing has changed."]


def test_the_tests_in_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    cells = [result("6.1-s390x", "failed", inputs="a"), result("6.1-x86_64", "failed", inputs="b")]
    old = {"same": "passed", "bad": "failed", "worse": "passed", "better": "failed", "less": "passed"}
    new = {"same": "passed", "bad": "failed", "worse": "killed", "better": "passed", "more": "failed"}
    seed(1, cells, {"6.1-s390x": old, "6.1-x86_64": {"again": "passed", "worse": "passed"}})
    cells = [result("6.1-s390x", "failed", inputs="a2"), result("6.1-x86_64", "failed", inputs="b2")]
    seed(2, cells, {"6.1-s390x": new, "6.1-x86_64": {"again": "passed!", "worse": "killed"}})
    assert run_command(["runs", "compare"]) == 1
    assert (
        "\n".join(capsys.readouterr().out.splitlines()[2:])
        == """\
regressed
  worse  on 6.1-s390x, 6.1-x86_64: passed -> killed

fixed
  better  on 6.1-s390x: failed -> passed

new
  more  on 6.1-s390x: failed

still failing
  6.1-s390x   failed (1)
  6.1-x86_64  failed (1)

flaky
  again  on 6.1-x86_64: passed

gone
  less  on 6.1-s390x: passed"""
    )


def test_tests_that_a_panic_kept_from_running_are_no_news_of_their_own() -> None:
    tests = {"6.1-s390x": {"a": Subtest(name="a", outcome=SubtestOutcome.PASSED)}}
    old = kept_of("1", [result("6.1-s390x", subtests={"passed": 1})], tests)
    found = compare.compare(old, kept_of("2", [result("6.1-s390x", "panicked")], {}))
    assert (found.tests, [line.change for line in found.cells]) == ([], [Change.REGRESSED])


def test_slices_of_one_cell_are_one() -> None:
    tests = [{"a": Subtest(name="a", outcome=SubtestOutcome.PASSED)}, {}]
    cells = [
        result(f"6.1-s390x@{number}of2", shard=f"{number}of2", subtests={"passed": 1}) for number in (1, 2)
    ]
    sides = [
        kept_of(str(number), cells, dict(zip([cell.cell for cell in cells], order, strict=True)))
        for number, order in enumerate((tests, tests[::-1]))
    ]
    found = compare.compare(*sides)
    assert (found.cells, found.tests) == ([], [])


def kept_of(run: str, cells: list[Any], tests: dict[str, dict[str, Subtest]]) -> RecordedRun:
    results = RunResults(run=run, command=["x"], started=run, cells=cells)
    return RecordedRun(results=results, place=Path("/nowhere"), tests=tests)


def said(fingerprint: str, title: str, **more: Any) -> FindingSummary:
    return FindingSummary(kind=FindingKind.WARNING, fingerprint=fingerprint, title=title, **more)


def test_what_the_kernels_said() -> None:
    def cells(inputs: str, *findings: tuple[str, str]) -> list[CellResult]:
        return [
            result(
                cell,
                "failed",
                inputs=inputs,
                # With another CPU number it is the same finding; an allowed one is not compared.
                findings=[said(name, f"{title} on CPU {number}") for name, title in findings]
                + [said(inputs, "known", allowed=True)],
            )
            for number, cell in enumerate(("6.1-s390x", "6.1-x86_64"))
        ]

    old = cells("a", ("f1", "WARNING in f"), ("f2", "BUG in g"))
    new = cells("b", ("f2", "BUG in g"), ("f3", "KASAN in h"))
    found = compare.compare(kept_of("1", old, {}), kept_of("2", new, {}))
    assert [(line.change, line.title, len(line.cells)) for line in found.findings] == [
        (Change.FIXED, "WARNING in f on CPU 0", 2),
        (Change.STILL_FAILING, "BUG in g on CPU 0", 2),
        (Change.REGRESSED, "KASAN in h on CPU 0", 2),
    ]
    assert found.has_regressed
    assert "  KASAN in h on CPU 0 (f3)  on 6.1-s390x, 6.1-x86_64" in compare.render(found)


def test_what_a_cell_did_as_its_time_was_up_is_no_regression() -> None:
    def cells(title: str) -> list[CellResult]:
        hang = FindingSummary(kind=FindingKind.HANG, fingerprint=title, title=title)
        return [result("6.1-s390x", "timed-out", findings=[hang])]

    places = [seed(1, cells("sh waits in f")), seed(2, cells("dd waits in g"))]
    History(print).catch_up()
    before, after = (History(print).find(place.name) for place in places)
    assert before is not None
    assert after is not None
    found = compare.compare(before, after)
    assert found.findings == []
    assert not found.has_regressed


def test_findings_are_recorded_and_compared_when_their_folders_are_gone() -> None:
    one = result("6.1-s390x", "splat", findings=[said("f1", "WARNING in f")])
    places = [seed(1, [result("6.1-s390x")]), seed(2, [one])]
    History(print).catch_up()
    with sqlite3.connect(database.path()) as connection:
        rows = connection.execute("SELECT fingerprint, title FROM findings").fetchall()
    connection.close()
    assert rows == [("f1", "WARNING in f")]
    for place in places:
        shutil.rmtree(place)
    before, after = (History(print).find(place.name) for place in places)
    assert before is not None
    assert after is not None
    (line,) = compare.compare(before, after).findings
    assert (line.change, line.name) == (Change.REGRESSED, "f1")


def test_damaged_runs_are_named_and_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    seed(1, [result("6.1-s390x")])
    (seed(2, [result("6.1-s390x")]) / directory.RESULTS).write_text('{"run"')
    seed(3, [result("6.1-s390x", "failed")])
    seed(4, [result("6.1-s390x")], finished=None)
    assert run_command(["runs", "compare"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("20261102-120000-0001 -> 20261104-120000-0003")
    assert "0002 is passed over: its results cannot be read" in said.err
    assert "0004 is passed over: the run has not finished, or was killed" in said.err


def test_a_run_whose_directory_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    old = {"6.1-s390x": {"a": "failed", "b": "passed", "c": "passed"}}
    place = seed(1, [result("6.1-s390x", "failed")], old)
    seed(2, [result("6.1-s390x", "failed")], {"6.1-s390x": {"a": "passed", "b": "failed", "c": "passed"}})
    History(print).catch_up()
    place.rename(place.with_name(".away"))
    assert run_command(["runs", "compare"]) == 1
    lines = capsys.readouterr().out.splitlines()[2:]
    assert lines[:2] == ["regressed", "  b  on 6.1-s390x: failed"]
    assert lines[3:5] == ["fixed", "  a  on 6.1-s390x: failed -> passed"]
    assert "c  on" not in "\n".join(lines)


def test_the_grid_says_what_is_flaky_and_what_is_old() -> None:
    results = [
        result("6.1-x86_64", flaky="failed in the run before, from the same inputs"),
        result("6.1-s390x", "failed", flaky="passed in the run before, from the same inputs"),
        result("6.12-x86_64", earlier="20261102-120000-0001"),
    ]
    rows = [line.split("  ") for line in grid(results).splitlines()]
    assert "passed (flaky)  1.25s" in "  ".join(rows[2])
    assert "failed (1), flaky  1.25s" in "  ".join(rows[2])
    assert "passed*  1.25s" in "  ".join(rows[3])
    assert notes(results).splitlines() == [
        "Flaky: 6.1-x86_64: failed in the run before, from the same inputs",
        "Flaky: 6.1-s390x: passed in the run before, from the same inputs",
        "* not run again: from 20261102-120000-0001",
    ]


def test_a_chart_for_a_terminal() -> None:
    points = [
        Point(
            run=str(number),
            started=f"2026-11-0{number}T12:00:00+00:00",
            command=["x"],
            outcome=outcome,
            seconds=seconds,
        )
        for number, (outcome, seconds) in enumerate(
            [(Outcome.PASSED, 1.0), (Outcome.FAILED, 4.0), (Outcome.UNPREPARED, None)], 1
        )
    ]
    lines = chart.draw(points, blocks=True).splitlines()
    assert lines[0] == "3 runs: 1 passed, 1 failed, 1 unprepared; 1.00s to 4.00s, median 2.50s"
    assert lines[1] == "▃█▁"
    assert [line.count("█") for line in lines[2:]] == [8, 30, 0]
    assert chart.draw(points).isascii()
    assert "\x1b[31m█" in chart.draw(points, blocks=True, colour=True)
