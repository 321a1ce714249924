"""Compares the tests inside a run's commands across its cells: which fail where, and what failures share."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import msgspec

from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.report.colour import paint
from quizmatrix.report.common import common_sentence
from quizmatrix.subtests import reading

# Rows of a table, or names of a list, that a person reads.
MOST_ROWS = 40
# Tests of all cells together that are compared: guests decide how many they are, and each takes memory.
MOST_TESTS = 1_000_000
# Names behind a sentence: the rows tell the others.
_MOST_NAMES = 3
# Characters of a line, and the cells whose squares fit beside a name.
_WIDTH = 120
_MOST_COLUMNS = 6

_COLOURS = {
    SubtestOutcome.PASSED: Outcome.PASSED,
    SubtestOutcome.FAILED: Outcome.FAILED,
    SubtestOutcome.KILLED: Outcome.TIMED_OUT,
    SubtestOutcome.SKIPPED: Outcome.SKIPPED,
}

# A row's cells by index, with what the test did there.
Row = dict[int, Subtest]


class SubtestTable(msgspec.Struct, frozen=True, kw_only=True):
    """Tests, and the cells that ran some: a row's keys are indices of `cells`.

    unread: cells whose tests are none of them, for want of room.
    """

    cells: list[CellResult]
    rows: dict[str, Row]
    unread: list[str] = []


def whole(results: list[CellResult], run: Path, *, every: bool = False, colour: bool = False) -> str:
    """A row for each test that failed or differs (every: for each test), then what failures share.

    Empty where no cell's output has tests; without `every` also where there is nothing to compare.
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
    """The rows that `whole` shows, of all length. most: tests that are read; then no further cell is."""
    cells: list[CellResult] = []
    rows: dict[str, Row] = {}
    # A cell's slices share a column: together they are what it ran.
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
        # What failed first, then what ended differently, then what some cells do not have.
        # Groups have tests of their own: that one lacks another's is no difference.
        has_groups = len({cell.group for cell in cells}) > 1
        ranked = {name: _rank(row, 0 if has_groups else len(cells)) for name, row in rows.items()}
        names = sorted((name for name in rows if ranked[name] < _SAME), key=ranked.__getitem__)
        rows = {name: rows[name] for name in names}
    return SubtestTable(cells=cells, rows=rows, unread=list(unread))


def bad_lines(result: CellResult, run: Path) -> list[str]:
    """`failed: NAME` for the tests of one cell that were not good, the first of many."""
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
    return str(test.outcome) + (" (rerun)" if test.failed_before else "")


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
    """For each test the cells where it did what: `failed on 6.1-s390x, 6.12-s390x; passed on the other 7`.

    A test is looked for in the groups that have it.
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
    """`Fails only on s390x: NAME, NAME and 3 more.`, a line for each thing that failures share.

    And one for the cells that were not looked at.
    """
    tell = _teller(table.cells)
    named: dict[str, list[str]] = {}
    for name, row in table.rows.items():
        if sentence := tell(row):
            named.setdefault(sentence.rstrip("."), []).append(name)
    lines = []
    for sentence, names in named.items():
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        lines.append(f"{sentence}: {', '.join(names[:_MOST_NAMES])}{more}")
    if table.unread:
        lines.append(f"There are more tests than are compared: those of {', '.join(table.unread)} are not.")
    return "\n".join(lines)


def _teller(cells: list[CellResult]) -> Callable[[Row], str]:
    """Says of a row what the cells where it failed share. Tests that fail alike are looked at once."""
    known: dict[tuple[tuple[int, bool], ...], str] = {}

    def tell(row: Row) -> str:
        ran = tuple(
            (index, test.outcome.is_bad)
            for index, test in row.items()
            if test.outcome is not SubtestOutcome.SKIPPED and not cells[index].foreign
        )
        if ran not in known:
            known[ran] = common_sentence(
                [
                    msgspec.structs.replace(
                        cells[index],
                        outcome=Outcome.FAILED if failed else Outcome.PASSED,
                        expected=Outcome.PASSED,
                    )
                    for index, failed in ran
                ]
            )
        return known[ran]

    return tell
