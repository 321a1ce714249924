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

# Earlier runs that are looked through for the last test of a cell.
_LAST = 30


class _Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """run: the last result of each cell that was tested. untested: how those ended that were not, the last
    time.
    """

    run: RecordedRun
    untested: dict[str, Outcome]


def since_last(history: History, results: RunResults, place: Path) -> Comparison | None:
    """What changed in a run that has ended, or None where no run before it was of its kind.

    Each cell is compared with its own last test: a night that was cut short in between hides nothing of the
    next one. What could not be tested again, for whatever reason, is no change. place: the run's directory.
    Raises HistoryError.
    """
    # As it is recorded: what is no UTF-8 is replaced.
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
                # What the same command line does not select any more is gone; another's leaves it out.
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
    """A run that is recorded, with all its tests where its directory is still there."""
    recorded = history.find(run)
    if recorded is None:
        return None
    try:
        there = kept.load(recorded.place)
    except QuizmatrixError:
        return recorded
    return there if there.results.run == run else recorded
