"""Tells failures that are known from news: by a suite's own lists, and by globs of matrices and profiles."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from fnmatch import translate

import msgspec

from quizmatrix.model.known import KnownFailure, KnownUse
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.subtests.openzfs import RunnerReader, listed_name
from quizmatrix.subtests.openzfslists import SuiteLists

# The words of OpenZFS's lists for the outcomes that are failures.
_RESULTS = {SubtestOutcome.FAILED: "FAIL", SubtestOutcome.KILLED: "KILLED"}


def apply_suite(runner: RunnerReader, lists: SuiteLists) -> tuple[dict[str, Subtest], list[KnownUse]]:
    """The tests of OpenZFS's runner, with the failures that the suite expects as such.

    Also returns the tests that are known to fail and passed. What its report printed wins over the lists.
    """
    tests: dict[str, Subtest] = {}
    passed: list[KnownUse] = []
    for name, test in runner.tests.items():
        tests[name] = _judged(test, runner, lists)
        listed = lists.known.get(listed_name(name))
        if test.outcome is SubtestOutcome.PASSED and listed is not None and "FAIL" in listed.result:
            passed.append(KnownUse(test=name, ran=1, failed=0))
    return tests, passed


def _judged(test: Subtest, runner: RunnerReader, lists: SuiteLists) -> Subtest:
    if not test.outcome.is_bad:
        return test
    name, result = listed_name(test.name), _RESULTS[test.outcome]
    if runner.reported_unexpected.get(name) == result:
        return test
    for listed, sometimes in ((lists.known.get(name), False), (lists.maybe.get(name), True)):
        if listed is not None and result in listed.result:
            return _expected(test, listed.why, sometimes=sometimes)
    if name in runner.reported_expected:
        return _expected(test, runner.reported_expected[name])
    return test


def _expected(test: Subtest, why: str, *, sometimes: bool = False) -> Subtest:
    return msgspec.structs.replace(
        test, outcome=SubtestOutcome.FAILED_AS_EXPECTED, known=why, sometimes=sometimes
    )


def unexpected_skips(runner: RunnerReader) -> set[str]:
    """The tests that were skipped and that the report of OpenZFS's suite does not expect to be."""
    found = {name for name, result in runner.reported_unexpected.items() if result == "SKIP"}
    return {name for name in runner.tests if listed_name(name) in found}


def apply_known(
    tests: Mapping[str, Subtest],
    known: Sequence[KnownFailure],
    skips: Set[str] = frozenset(),
    quietly: Sequence[KnownFailure] = (),
) -> tuple[dict[str, Subtest], list[KnownUse]]:
    """The tests, with the failures that are known as such, and what the globs have met.

    known, quietly: see GuestLimits. skips: tests whose being skipped counts like a failure, see
    `unexpected_skips`.
    """
    # Of several that fit a test, the last one counts.
    everything = [*quietly, *known]
    patterns = [(one, re.compile(translate(one.test))) for one in everything]
    ran, failed = [0] * len(everything), [0] * len(everything)
    judged = dict(tests)
    for name, test in tests.items():
        if test.outcome is SubtestOutcome.SKIPPED and name not in skips:
            continue
        has_failed = test.outcome is not SubtestOutcome.PASSED
        for index, (one, pattern) in enumerate(patterns):
            if not pattern.match(name):
                continue
            ran[index] += 1
            failed[index] += has_failed
            if test.outcome.is_bad:
                judged[name] = _expected(test, one.why)
            elif name in skips:
                judged[name] = msgspec.structs.replace(test, known=one.why)
    uses = [
        KnownUse(test=one.test, ran=fits, failed=bad)
        for one, fits, bad in zip(everything, ran, failed, strict=True)
    ]
    return judged, [use for index, use in enumerate(uses) if use.ran or index >= len(quietly)]
