"""Data of recorded runs, and the rule that decides whether a cell is flaky."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quizmatrix.model.finding import FindingSummary
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.runs import directory
from quizmatrix.subtests import reading

# Results of a cell, beside the verdicts, that a kernel or a test may be the cause of.
ATTRIBUTABLE = frozenset(outcome for outcome in Outcome if outcome.is_verdict) | {Outcome.BOOT_FAILED}


class RunKind(msgspec.Struct, frozen=True, kw_only=True):
    """What makes runs comparable: their command, matrix and current folder."""

    command: list[str]
    matrix: str
    folder: str


def kind_of(results: RunResults) -> RunKind:
    """What a run has to have in common with another to be compared with it."""
    return RunKind(command=results.command, matrix=results.matrix, folder=results.folder)


class RecordedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it is kept. place: its run directory. tests: by cell and name; is_complete: those that passed
    too, not only the others.
    """

    results: RunResults
    place: Path
    tests: dict[str, dict[str, Subtest]] = {}
    is_complete: bool = True

    def knows_failures(self, result: CellResult) -> bool:
        """Whether every test that failed in a cell is known by name: the history keeps a number of them."""
        bad = sum(test.outcome.is_bad for test in self.tests.get(result.cell, {}).values())
        return bad >= sum(result.subtests.get(outcome, 0) for outcome in SubtestOutcome if outcome.is_bad)


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a cell. started: ISO 8601 in UTC. seconds: of the command."""

    run: str
    started: str
    command: list[str]
    outcome: Outcome
    seconds: float | None


def load(place: Path) -> RecordedRun:
    """A run from its directory; QuizmatrixError where that cannot be read."""
    return of(directory.load(place), place)


def of(results: RunResults, place: Path) -> RecordedRun:
    """A run whose results are known, with the tests that its directory has."""
    tests = {
        result.cell: {test.name: test for test in reading.load(place / result.folder)}
        for result in results.cells
        if result.subtests
    }
    return RecordedRun(results=results, place=place, tests=tests)


def why_flaky(outcome: Outcome, before: list[Outcome]) -> str:
    """Why a cell that ended so after it had ended otherwise, run from the same, is flaky; or nothing."""
    known = [one for one in before if one in ATTRIBUTABLE]
    if outcome not in ATTRIBUTABLE:
        return ""
    is_good = outcome is Outcome.PASSED
    others = [one for one in known if (one is Outcome.PASSED) is not is_good]
    if not others:
        return ""
    runs = f"{len(known)} runs" if len(known) > 1 else "run"
    count = f"{len(others)} of the " if len(known) > 1 else "the "
    return f"{' or '.join(dict.fromkeys(others))} in {count}{runs} before, from the same inputs"


def findings_of(result: CellResult) -> list[FindingSummary]:
    """A cell's findings that its matrix does not allow."""
    found = {finding.fingerprint: finding for finding in result.findings if not finding.allowed}
    return list(found.values())
