"""The result of one test among those that a command ran."""

from __future__ import annotations

from enum import StrEnum

import msgspec

# The number of tests of a command that are kept by name; further tests are only counted.
MAX_NAMED = 200_000


class SubtestOutcome(StrEnum):
    """The outcome of one test. skipped: it did not run, or its failure was expected (TAP's TODO)."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    KILLED = "killed"

    @property
    def is_bad(self) -> bool:
        """Whether a command fails if one of its tests has this outcome."""
        return self in (SubtestOutcome.FAILED, SubtestOutcome.KILLED)


class Subtest(msgspec.Struct, frozen=True, kw_only=True):
    """A test and its last outcome.

    name: without control characters. failed_before: it failed at first and passed when it was run again.
    """

    name: str
    outcome: SubtestOutcome
    failed_before: bool = False
