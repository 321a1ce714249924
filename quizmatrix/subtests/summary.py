"""What the single tests of a command mean for its outcome."""

from __future__ import annotations

from collections import Counter

import msgspec

from quizmatrix.core.text import first_of
from quizmatrix.model.known import KnownUse
from quizmatrix.model.subtest import Subtest, SubtestOutcome, counted


class SubtestSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A summary of a command's tests; see the properties of Subtests."""

    counts: dict[str, int] = {}
    summary: str = ""
    limits: list[str] = []
    flaky: str = ""
    failure: str = ""
    known: list[KnownUse] = []
    kernel_has_some: bool = False
    running: str = ""
    is_excused: bool = False

    def explains(self, exit_code: int) -> bool:
        """Whether an exit status says no more than that tests failed as expected.

        Runners of tests end with 1 where a test failed, and those of Perl with the number of such tests.
        """
        failed = self.counts.get(SubtestOutcome.FAILED_AS_EXPECTED, 0)
        return self.is_excused and exit_code in (1, failed)


class SuiteEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How the tests ended.

    unexpected_skips: tests that were skipped, which neither OpenZFS's suite nor the matrix expects.
    is_unfinished: whether tests ran and what has to come after them did not: OpenZFS's summary, TAP's plan.
    """

    unexpected_skips: list[str] = []
    is_unfinished: bool = False


class Subtests(msgspec.Struct, frozen=True, kw_only=True):
    """The test results in a command's output and on its kernel's console.

    is_known: whether a known format was found; if not, all other fields are empty.
    tests: in the order of the output, then of the console; a test in both has the worse outcome.
    unnamed: by outcome, the number of further tests: without a name, or too many.
    missing: the number of tests that were announced but did not run.
    bail_out: why the tests bailed out; None if they did not.
    none_ran: whether the command's own output has a known format but no tests, whatever the kernel printed.
    kernel_has_some: whether the console has results.
    has_unread: whether there are more result lines than are read, or a console with results is incomplete.
    has_left_out: whether there are more tests than are kept by name.
    suite_end: how they ended.
    running: the test that has begun and has no result, by its name or its place; empty if none is known.
    known: what is known of failures and has met tests, or none; of a suite's own lists only what passed.
    """

    is_known: bool = False
    tests: list[Subtest] = []
    unnamed: dict[SubtestOutcome, int] = {}
    missing: int = 0
    bail_out: str | None = None
    none_ran: bool = False
    kernel_has_some: bool = False
    has_unread: bool = False
    has_left_out: bool = False
    known: list[KnownUse] = []
    suite_end: SuiteEnd = SuiteEnd()
    running: str = ""

    @property
    def summed_up(self) -> SubtestSummary:
        """The summary, without the tests' names."""
        return SubtestSummary(
            counts=self.counts,
            summary=self.summary,
            limits=self.limits,
            flaky=self.flaky,
            failure=self.failure,
            known=self.known,
            running=self.running,
            is_excused=self.is_excused,
            kernel_has_some=self.kernel_has_some,
        )

    @property
    def counts(self) -> dict[str, int]:
        """The number of tests for each outcome that occurred."""
        found = Counter(test.outcome for test in self.tests) + Counter(self.unnamed)
        return {str(outcome): found[outcome] for outcome in SubtestOutcome if found[outcome]}

    @property
    def summary(self) -> str:
        """`tests: 11 passed, 2 failed, 1 not run`; empty if no known format was found."""
        words = [counted(self.counts), f"{self.missing} not run" if self.missing else ""]
        told = ", ".join(filter(None, words))
        if skips := self.suite_end.unexpected_skips:
            told += f"; skipped, which the suite does not expect: {first_of(skips)}"
        return "" if not self.is_known else f"tests: {told}" if told else "no test ran"

    @property
    def limits(self) -> list[str]:
        """Messages about limits that were reached."""
        total = sum(self.counts.values())
        named = f"of {total:,} tests the first {len(self.tests):,} are kept by name"
        return [named] if self.has_left_out else []

    @property
    def flaky(self) -> str:
        """Why a pass is not reliable: some tests failed and passed in a rerun, or fail now and then."""
        again = sum(test.failed_before for test in self.tests)
        sometimes = [test.name for test in self.tests if test.sometimes]
        words = [f"{again} test{'s' if again != 1 else ''} failed, then passed"] if again else []
        if sometimes:
            words.append(f"known to fail now and then, and failed: {first_of(sometimes)}")
        return "; ".join(words)

    @property
    def is_excused(self) -> bool:
        """Whether tests failed or were skipped, nothing is to be blamed for it, and they came to their end.

        OpenZFS's zfs-tests.sh ends with 1 also where its test runner broke off.
        """
        has_known = any(test.known for test in self.tests)
        end = self.suite_end
        return has_known and not (self.failure or end.unexpected_skips or end.is_unfinished)

    @property
    def failure(self) -> str:
        """Why the command failed even if its exit status is 0; empty if the tests give no reason."""
        if not self.is_known:
            return ""
        counts = self.counts
        total = sum(counts.values()) + self.missing
        told = [
            (counts.get(SubtestOutcome.FAILED, 0), "failed"),
            (counts.get(SubtestOutcome.KILLED, 0), "were killed"),
            (self.missing, "did not run"),
        ]
        words = [f"{count} of {total} tests {what}" for count, what in told if count]
        if self.has_unread:
            words.append("there were more test results than are read")
        if self.bail_out is not None:
            words.insert(0, "the tests bailed out" + (f": {self.bail_out}" if self.bail_out else ""))
        return "; ".join(words) or ("no test ran" if self.none_ran or not total else "")
