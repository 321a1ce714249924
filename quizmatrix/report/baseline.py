"""Compares a run with the last results of its cells in earlier runs of the same kind."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import msgspec

from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.core.json import encode
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.model.subtest import Subtest
from quizmatrix.report import compare
from quizmatrix.report.compare import UNTESTED, Change, Comparison, Difference
from quizmatrix.report.grid import verdict_words
from quizmatrix.runs.history import kept
from quizmatrix.runs.history.kept import RecordedRun
from quizmatrix.runs.history.record import History

# How many earlier runs are searched for the last result of a cell.
_LAST = 30


class _Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is compared with.

    run: the last result of each cell that was tested. untested: the outcomes of cells that could not be
    tested the last time.
    """

    run: RecordedRun
    untested: dict[str, Outcome]


def since_last(history: History, results: RunResults, place: Path) -> Comparison | None:
    """Compare a run that has ended with earlier runs of its kind; None where there was none.

    Each cell is compared with its own last result, so that a night that was cut short hides no change. A cell
    that could not be tested the last time, and cannot be tested now, is no change. place: the run's
    directory. Raises HistoryError.
    """
    # As in the history, bytes that are no UTF-8 are replaced.
    results = msgspec.json.decode(encode(results), type=RunResults)
    base = _baseline(history, results)
    if base is None:
        return None
    found = compare.compare(base.run, kept.of(results, place))
    cells = [line for line in found.cells if line.change is not Change.NOT_TESTED]
    before = {result.cell: result for result in base.run.results.cells}
    for result in results.cells:
        if result.outcome in UNTESTED and result.cell not in base.untested:
            was = verdict_words(before[result.cell]) if result.cell in before else ""
            line = Difference(
                change=Change.NOT_TESTED, cells=[result.cell], before=was, after=verdict_words(result)
            )
            cells.append(line)
    return msgspec.structs.replace(found, cells=cells)


def _baseline(history: History, results: RunResults) -> _Baseline | None:
    history.catch_up()
    kind = kept.kind_of(results)
    runs = (
        run
        for run in history.runs()
        if run.run != results.run and run.started <= results.started and kept.kind_of(run) == kind
    )
    wanted = {result.cell for result in results.cells}
    newest: RecordedRun | None = None
    found: dict[str, tuple[CellResult, RecordedRun]] = {}
    untested: dict[str, Outcome] = {}
    for run in islice(runs, _LAST):
        one = _load(history, run.run)
        if one is None:
            continue
        if newest is None:
            newest = one
            if one.results.arguments == results.arguments:
                # The same command line does not select these cells any more: they are compared, as gone.
                # Another command line may just not have selected them.
                wanted |= {result.cell for result in one.results.cells}
        for result in one.results.cells:
            if result.earlier or result.cell not in wanted or result.cell in found:
                continue
            if result.outcome in UNTESTED:
                untested.setdefault(result.cell, result.outcome)
            else:
                found[result.cell] = (result, one)
        if wanted <= found.keys():
            break
    if newest is None:
        return None
    tests: dict[str, dict[str, Subtest]] = {cell: one.tests.get(cell, {}) for cell, (_, one) in found.items()}
    base = RecordedRun(
        results=msgspec.structs.replace(newest.results, cells=[result for result, _ in found.values()]),
        place=newest.place,
        tests=tests,
        is_complete=all(one.is_complete for _, one in found.values()),
    )
    return _Baseline(run=base, untested=untested)


def _load(history: History, run: str) -> RecordedRun | None:
    """A recorded run; with all its tests, if its directory still exists."""
    recorded = history.find(run)
    if recorded is None:
        return None
    try:
        there = kept.load(recorded.place)
    except QuizmatrixError:
        return recorded
    return there if there.results.run == run else recorded
