"""The result of one test among those that a command ran."""

from __future__ import annotations

from enum import StrEnum

import msgspec

# Tests of a command that are kept by name; of more only the number is known.
MOST_NAMED = 200_000


class SubtestOutcome(StrEnum):
    """What became of one test. skipped: it did not run, or its failure is a known one (TAP's TODO)."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    KILLED = "killed"

    @property
    def is_bad(self) -> bool:
        """Whether a command with such a test has not passed."""
        return self in (SubtestOutcome.FAILED, SubtestOutcome.KILLED)


class Subtest(msgspec.Struct, frozen=True, kw_only=True):
    """A test and its last outcome.

    name: clean enough to be shown. failed_before: it ran more than once, and the last run alone was good.
    """

    name: str
    outcome: SubtestOutcome
    failed_before: bool = False
