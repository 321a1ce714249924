"""Data of recorded runs, and the rule that decides whether a cell is flaky."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quizmatrix.model.finding import FindingKind, FindingSummary
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.runs import directory

# Outcomes that the kernel or the test may have caused; the others (lost, cancelled) say nothing about them.
ATTRIBUTABLE = frozenset(outcome for outcome in Outcome if outcome.is_verdict) | {Outcome.BOOT_FAILED}


class RunKind(msgspec.Struct, frozen=True, kw_only=True):
    """Runs with the same command, matrix and current folder are of one kind, and are compared."""

    command: list[str]
    matrix: str
    folder: str


def kind_of(results: RunResults) -> RunKind:
    """The kind of a run."""
    return RunKind(command=results.command, matrix=results.matrix, folder=results.folder)


class RecordedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run from its directory or from the history.

    place: its run directory. tests: by cell id and test name. is_complete: whether `tests` has those that
    passed, too; the history keeps only the others.
    """

    results: RunResults
    place: Path
    tests: dict[str, dict[str, Subtest]] = {}
    is_complete: bool = True

    def knows_failures(self, result: CellResult) -> bool:
        """Whether the names of all failed tests of a cell are known; the history keeps a limited number."""
        bad = sum(test.outcome.is_bad for test in self.tests.get(result.cell, {}).values())
        return bad >= sum(result.subtests.get(outcome, 0) for outcome in SubtestOutcome if outcome.is_bad)


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one cell. started: ISO 8601 in UTC. seconds: that the command took."""

    run: str
    started: str
    command: list[str]
    outcome: Outcome
    seconds: float | None


def load(place: Path) -> RecordedRun:
    """Read a run from its directory. Raises QuizmatrixError where that cannot be read."""
    return of(directory.load(place), place)


def of(results: RunResults, place: Path) -> RecordedRun:
    """A run with these results, and with the tests from its directory."""
    from quizmatrix.subtests import reading

    tests = {
        result.cell: {test.name: test for test in reading.load(place / result.folder)}
        for result in results.cells
        if result.subtests
    }
    return RecordedRun(results=results, place=place, tests=tests)


def why_flaky(outcome: Outcome, before: list[Outcome]) -> str:
    """Why a cell is flaky, or an empty string. before: its outcomes in earlier runs with the same inputs.

    A cell is flaky if it passed with these inputs and failed with them, too.
    """
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
    """The findings of a cell, without those that its matrix allows.

    And without what it did as its time was up: that is chance, and would be a regression in every other run.
    """
    told = (one for one in result.findings if not one.allowed and one.kind is not FindingKind.HANG)
    found = {finding.fingerprint: finding for finding in told}
    return list(found.values())
