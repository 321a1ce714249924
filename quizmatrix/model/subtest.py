"""The result of one test among those that a command ran."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

# The number of tests of a command that are kept by name; further tests are only counted.
MAX_NAMED = 200_000


class SubtestOutcome(StrEnum):
    """The outcome of one test.

    failed-as-expected: its failure is known, to its suite or to the matrix. skipped: it did not run, or it
    said itself that its failure was expected (TAP's TODO). killed: it was cut off by a time limit.
    """

    PASSED = "passed"
    FAILED = "failed"
    FAILED_AS_EXPECTED = "failed-as-expected"
    SKIPPED = "skipped"
    KILLED = "killed"

    @property
    def is_bad(self) -> bool:
        """Whether a command fails if one of its tests has this outcome."""
        return self in (SubtestOutcome.FAILED, SubtestOutcome.KILLED)

    @property
    def words(self) -> str:
        """`failed as expected`: the outcome as text for people."""
        return self.value.replace("-", " ")


def counted(counts: Mapping[str, int]) -> str:
    """`812 passed, 9 failed as expected`: how many tests have each outcome, as text for people."""
    return ", ".join(f"{count} {outcome.replace('-', ' ')}" for outcome, count in counts.items())


class Subtest(msgspec.Struct, frozen=True, kw_only=True):
    """A test and its last outcome.

    name: without control characters. failed_before: it failed at first and passed when it was run again.
    seconds: how long its last run took; None where the output does not say.
    known: why its failure is known, where it failed as expected. sometimes: it is known to fail only now and
    then.
    """

    name: str
    outcome: SubtestOutcome
    failed_before: bool = False
    seconds: float | None = None
    known: str = ""
    sometimes: bool = False
