"""Compares the tests inside a run's commands across its cells: which fail where, and what failures share."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import msgspec

from quizmatrix.core.text import first_of
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.report.colour import paint
from quizmatrix.report.common import common_sentence
from quizmatrix.subtests import reading

# The largest number of rows of a table, or names of a list.
MOST_ROWS = 40
# The largest number of tests of all cells that are compared. Guests decide how many there are, and each takes
# memory.
MOST_TESTS = 1_000_000
# The longest line, and the largest number of cells that get a column.
_WIDTH = 120
_MOST_COLUMNS = 6

_COLOURS = {
    SubtestOutcome.PASSED: Outcome.PASSED,
    SubtestOutcome.FAILED: Outcome.FAILED,
    SubtestOutcome.KILLED: Outcome.TIMED_OUT,
    SubtestOutcome.SKIPPED: Outcome.SKIPPED,
    SubtestOutcome.FAILED_AS_EXPECTED: Outcome.SKIPPED,
}

# One test's results, by the index of the cell.
Row = dict[int, Subtest]


class SubtestTable(msgspec.Struct, frozen=True, kw_only=True):
    """Tests and the cells that ran them.

    rows: by test name; a row's keys are indices of `cells`. unread: cells whose tests were not read, because
    of MOST_TESTS.
    """

    cells: list[CellResult]
    rows: dict[str, Row]
    unread: list[str] = []


def whole(results: list[CellResult], run: Path, *, every: bool = False, colour: bool = False) -> str:
    """A row for each test that failed or differs between cells, then sentences on what failures share.

    every: a row for each test. run: the run directory. Empty where no cell's output has tests; without
    `every` also where no test failed or differs.
    """
    table = collect(results, run, every=every)
    cells, rows = table.cells, table.rows
    if not rows:
        return sentences(table)
    shown = dict(list(rows.items())[: len(rows) if every else MOST_ROWS])
    ids = [cell.unsharded for cell in cells]
    text = _table(shown, ids, colour) if _fits(shown, ids) else _lists(shown, cells)
    if len(shown) < len(rows):
        text += f"\nand {len(rows) - len(shown)} more (`quizmatrix runs show --tests` shows every test)"
    return "\n\n".join(part for part in (text, sentences(table)) if part)


def collect(
    results: list[CellResult], run: Path, *, every: bool = False, most: int = MOST_TESTS
) -> SubtestTable:
    """Read the rows that `whole` shows. most: after so many tests, no further cell is read."""
    cells: list[CellResult] = []
    rows: dict[str, Row] = {}
    # The slices of a cell share a column.
    columns: dict[str, int] = {}
    unread: dict[str, None] = {}
    read = 0
    for result in results:
        if result.subtests and read >= most:
            unread[result.unsharded] = None
            continue
        tests = reading.load(run / result.folder) if result.subtests else []
        if tests and result.unsharded not in columns:
            columns[result.unsharded] = len(cells)
            cells.append(result)
        read += len(tests)
        for test in tests:
            rows.setdefault(test.name, {})[columns[result.unsharded]] = test
    if not every:
        # Failed tests come first, then tests that differ, then tests that some cells do not have.
        # Each group has its own tests, so a test that another group lacks is no difference.
        has_groups = len({cell.group for cell in cells}) > 1
        ranked = {name: _rank(row, 0 if has_groups else len(cells)) for name, row in rows.items()}
        names = sorted((name for name in rows if ranked[name] < _SAME), key=ranked.__getitem__)
        rows = {name: rows[name] for name in names}
    return SubtestTable(cells=cells, rows=rows, unread=list(unread))


def failed_test_lines(result: CellResult, run: Path) -> list[str]:
    """`failed: NAME` for each failed test of one cell, at most MOST_ROWS of them."""
    tests = reading.load(run / result.folder) if result.subtests else []
    lines = [
        f"{test.outcome}: {test.name}" if test.outcome.is_bad else f"failed, then passed: {test.name}"
        for test in tests
        if test.outcome.is_bad or test.failed_before
    ]
    more = [f"and {len(lines) - MOST_ROWS} more"] if len(lines) > MOST_ROWS else []
    return lines[:MOST_ROWS] + more


_SAME = 3


def _rank(row: Row, cells: int) -> int:
    if any(test.outcome.is_bad or test.failed_before for test in row.values()):
        return 0
    if len({test.outcome for test in row.values()}) > 1:
        return 1
    return 2 if len(row) < cells else _SAME


def outcome_words(test: Subtest) -> str:
    """`failed`, `passed (rerun)`."""
    return test.outcome.words + (" (rerun)" if test.failed_before else "")


def _fits(rows: dict[str, Row], ids: list[str]) -> bool:
    """Whether a column for each cell fits beside the names."""
    squares = sum(2 + max(len(name), len("skipped")) for name in ids)
    return len(ids) <= _MOST_COLUMNS and max(map(len, rows)) + squares <= _WIDTH


def _table(rows: dict[str, Row], ids: list[str], colour: bool) -> str:
    from tabulate import tabulate

    def square(test: Subtest | None) -> str:
        return paint(outcome_words(test), _COLOURS[test.outcome], colour) if test else "-"

    table = [[name, *(square(row.get(index)) for index in range(len(ids)))] for name, row in rows.items()]
    return tabulate(table, headers=["test", *ids], tablefmt="simple", disable_numparse=True)


def _lists(rows: dict[str, Row], cells: list[CellResult]) -> str:
    """Each test with its cells: `failed on 6.1-s390x, 6.12-s390x; passed on the other 7`.

    Cells of groups that do not have the test are not mentioned.
    """
    lines = []
    for name, row in rows.items():
        places: dict[str, list[str]] = {}
        groups = {cells[index].group for index in row}
        asked = [(index, cell.unsharded) for index, cell in enumerate(cells) if cell.group in groups]
        for index, cell in asked:
            places.setdefault(outcome_words(row[index]) if index in row else "absent", []).append(cell)
        parts = [f"{words} {_on(where, len(asked))}" for words, where in places.items() if words != "passed"]
        if not parts:
            parts = ["passed everywhere"]
        elif passed := places.get("passed"):
            parts.append(f"passed on the other {len(passed)}")
        lines.append(name)
        lines += textwrap.wrap("; ".join(parts), _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def _on(cells: list[str], of: int) -> str:
    return "everywhere" if len(cells) == of else f"on {', '.join(cells)}"


def sentences(table: SubtestTable) -> str:
    """Lines such as `Fails only on s390x: NAME, NAME and 3 more`, and one on cells that were not read."""
    tell = _sentence_maker(table.cells)
    named: dict[str, list[str]] = {}
    for name, row in table.rows.items():
        if sentence := tell(row):
            named.setdefault(sentence.rstrip("."), []).append(name)
    lines = []
    for sentence, names in named.items():
        lines.append(f"{sentence}: {first_of(names)}")
    if table.unread:
        lines.append(f"There are more tests than are compared: those of {', '.join(table.unread)} are not.")
    return "\n".join(lines)


# What a sentence can be made of: a test that did not run says nothing, and one that a time limit cut off only
# that it was slow there.
_TELLING = {
    SubtestOutcome.PASSED: (Outcome.PASSED, Outcome.PASSED),
    SubtestOutcome.FAILED: (Outcome.FAILED, Outcome.PASSED),
    SubtestOutcome.FAILED_AS_EXPECTED: (Outcome.FAILED, Outcome.FAILED),
}


def _sentence_maker(cells: list[CellResult]) -> Callable[[Row], str]:
    """Make a function that returns a row's common sentence, cached by the outcomes of the cells."""
    known: dict[tuple[tuple[int, SubtestOutcome], ...], str] = {}

    def tell(row: Row) -> str:
        ran = tuple(
            (index, test.outcome)
            for index, test in row.items()
            if test.outcome in _TELLING and not cells[index].foreign
        )
        if ran not in known:
            told = [(cells[index], *_TELLING[outcome]) for index, outcome in ran]
            known[ran] = common_sentence(
                [
                    msgspec.structs.replace(cell, outcome=outcome, expected=expected, subtests={})
                    for cell, outcome, expected in told
                ]
            )
        return known[ran]

    return tell
