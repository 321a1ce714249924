"""Joins what several guests of one cell did into the cell's result."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import msgspec

from quizmatrix.model.finding import FindingSummary
from quizmatrix.model.known import KnownUse
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, Timings
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.subtests.summary import Subtests

Tests = dict[str, Subtest]

# Where the name of a part of a test goes on behind the test's.
_PART = re.compile(r"/| \(")

# Outcomes of a guest that ended although its command had not.
_CRASHES = frozenset({Outcome.PANICKED, Outcome.LOST, Outcome.FAILED})


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one guest of a cell did. name: of its folder in the cell's; empty for the first guest.

    tests: in its output. lost: the test that was running when the guest ended; empty where none was.
    """

    name: str = ""
    result: CellResult
    tests: list[Subtest] = []
    lost: str = ""

    @property
    def has_crashed(self) -> bool:
        """Whether the guest ended although its command had not, and not by a time limit."""
        return self.result.exit_code is None and self.result.outcome in _CRASHES


def lost_test(part: Part) -> list[Subtest]:
    """The test that was running when its guest ended. That of a guest that the host lost is no failure."""
    killed = part.result.outcome is Outcome.LOST
    outcome = SubtestOutcome.KILLED if killed else SubtestOutcome.FAILED
    return [Subtest(name=part.lost, outcome=outcome)] if part.lost else []


def joined_tests(parts: Iterable[Part]) -> Tests:
    """The tests of guests that followed each other. What ran in several has the worse outcome: a setup."""
    found: Tests = {}
    for part in parts:
        for test in (*part.tests, *lost_test(part)):
            before = found.get(test.name)
            if before is None or (test.outcome.is_bad and not before.outcome.is_bad):
                found[test.name] = test
    return found


def with_rerun(tests: Tests, wanted: Collection[str], parts: Sequence[Part]) -> Tests:
    """The tests, after the `wanted` ones, which had failed, ran once more in `parts`.

    Those that passed now had failed before. So has one of which only parts have results now, as of a test
    that ended its guest, if none of them is bad: they take its place. A test that was skipped before, as its
    setup had failed, and ran now counts too, and so does one that fails and had not run: its command may have
    stopped before. Others say nothing: a command may run all of its tests again.
    """
    again = joined_tests(parts)
    found = dict(tests)
    for name in wanted:
        if name in again and again[name].outcome is SubtestOutcome.PASSED:
            found[name] = msgspec.structs.replace(again[name], failed_before=True)
    # Where the command came to its end, no part of a test is missing.
    has_ended = bool(parts) and parts[-1].result.exit_code is not None
    lost = {name for name in wanted if name not in again} if has_ended else set()
    for name, inside in _parts_of(lost, again).items():
        passed = [test for test in inside if test.outcome is SubtestOutcome.PASSED]
        if passed and not any(test.outcome.is_bad for test in inside):
            del found[name]
            found |= {test.name: msgspec.structs.replace(test, failed_before=True) for test in passed}
    for name, test in again.items():
        is_new = name not in tests and test.outcome.is_bad
        if is_new or (name in tests and tests[name].outcome is SubtestOutcome.SKIPPED):
            found[name] = test
    return found


def _parts_of(names: set[str], tests: Tests) -> dict[str, list[Subtest]]:
    """By name, its parts among the tests: `NAME/PART`, or `NAME (SECTION)` of xfstests and blktests."""
    found: dict[str, list[Subtest]] = {}
    for test in tests.values() if names else ():
        for match in _PART.finditer(test.name):
            if (name := test.name[: match.start()]) in names:
                found.setdefault(name, []).append(test)
    return found


def bad_names(tests: Tests) -> list[str]:
    """The names of the tests that failed or were killed."""
    return [name for name, test in tests.items() if test.outcome.is_bad]


def joined_result(
    parts: Sequence[Part], tests: Tests, reruns: Sequence[Part] = (), failure: str = ""
) -> CellResult:
    """The result of a cell with several guests.

    parts: the first guest, and those that went on where one before had crashed. tests: all that these ran,
    and how the failed ones ended when they ran again. reruns: the guests where they did. failure: what else
    than failed tests speaks against a pass. The outcome is that of the first guest that crashed; else the
    first one that is not `passed`, unless every test that failed has passed now. A guest that the host lost
    only counts where no other is bad.
    """
    first = parts[0].result
    further = [*parts[1:], *reruns]
    bad = [part for part in parts if part.result.outcome is not Outcome.PASSED]
    ranked = [*(part for part in bad if part.has_crashed), *bad] or list(parts)
    told = next((part for part in ranked if part.result.outcome.is_verdict), ranked[0]).result
    if reruns and not failure and not bad_names(tests) and all(map(_has_failed_tests, bad)):
        others = [part.result for part in reruns if not _has_failed_tests(part)]
        other = next((result for result in others if result.outcome is not Outcome.PASSED), None)
        passed = msgspec.structs.replace(told, outcome=Outcome.PASSED, exit_code=0, detail="")
        told = other or passed
    unnamed: Counter[str] = Counter()
    for part in parts:
        unnamed += Counter(part.result.subtests) - Counter(str(test.outcome) for test in part.tests)
    counts = Counter(str(test.outcome) for test in tests.values()) + unnamed
    return msgspec.structs.replace(
        first,
        outcome=told.outcome,
        exit_code=told.exit_code,
        signal=told.signal,
        detail="; ".join(filter(None, [told.detail, failure if reruns else ""])),
        flaky=Subtests(tests=list(tests.values())).flaky if told.outcome is Outcome.PASSED else "",
        known=_known(part.result for part in parts),
        subtests={str(outcome): counts[str(outcome)] for outcome in SubtestOutcome if counts[str(outcome)]},
        findings=_findings([first, *(part.result for part in further)]),
        timings=_timings([first, *(part.result for part in further)]),
        further=[part.name for part in further],
    )


def _has_failed_tests(part: Part) -> bool:
    """Whether the guest's command came to its end, and tests of its failed."""
    result = part.result
    ended = result.outcome is Outcome.FAILED and result.exit_code is not None and result.signal is None
    return ended and any(test.outcome.is_bad for test in part.tests)


def _known(results: Iterable[CellResult]) -> list[KnownUse]:
    met: dict[str, KnownUse] = {}
    for use in (use for result in results for use in result.known):
        before = met.get(use.test, KnownUse(test=use.test, ran=0, failed=0))
        ran, failed = use.ran + before.ran, use.failed + before.failed
        met[use.test] = KnownUse(test=use.test, ran=ran, failed=failed)
    return list(met.values())


def _findings(results: Iterable[CellResult]) -> list[FindingSummary]:
    found: dict[str, FindingSummary] = {}
    for result in results:
        for finding in result.findings:
            before = found.get(finding.fingerprint)
            count = finding.count + (before.count if before else 0)
            found[finding.fingerprint] = msgspec.structs.replace(before or finding, count=count)
    return list(found.values())


def command_seconds(result: CellResult) -> float:
    """How long the command of a guest ran, also where the guest ended before it."""
    times = result.timings
    if times.command is not None:
        return times.command
    before = [times.boot, times.profiles]
    return max(0.0, (times.total or 0.0) - sum(filter(None, before))) if None not in before else 0.0


def _timings(results: Sequence[CellResult]) -> Timings:
    """Those of the first guest, with the commands and the totals of all."""
    return msgspec.structs.replace(
        results[0].timings,
        command=round(sum(map(command_seconds, results)), 3),
        total=round(sum(result.timings.total or 0.0 for result in results), 3),
    )
