"""What readers of the results of test suites have in common."""

from __future__ import annotations

from collections import Counter

import msgspec

from quizmatrix.core.text import clean_line
from quizmatrix.model.subtest import MAX_NAMED, Subtest, SubtestOutcome

# Of several results of one test the last of these counts.
_RANKS = (SubtestOutcome.SKIPPED, SubtestOutcome.PASSED, SubtestOutcome.FAILED, SubtestOutcome.KILLED)


class SuiteReader:
    """Reads the output of a suite's runner; each suite has its subclass.

    is_known: whether the suite's format was found. tests: by name. unnamed: the number of further tests, by
    outcome. is_unfinished: whether tests have run, and what ends the suite's output has not come since.
    running: the test that has begun and has no result; empty if none is known.
    """

    def __init__(self, max_named: int = MAX_NAMED) -> None:
        """max_named: how many tests are kept by name. The results are complete after `finish`."""
        self._max_named = max_named
        self.is_known = False
        self.tests: dict[str, Subtest] = {}
        self.unnamed: Counter[SubtestOutcome] = Counter()
        self.is_unfinished = False
        self.running = ""

    def feed(self, line: str) -> None:
        """Take the next line."""
        raise NotImplementedError

    def finish(self) -> None:
        """Take the end of the output."""

    def _keep(self, name: str, outcome: SubtestOutcome, seconds: float | None = None) -> None:
        """Take a result. Of a test that has one, the worse counts."""
        name = clean_line(name)
        before = self.tests.get(name)
        if before is None or _RANKS.index(outcome) > _RANKS.index(before.outcome):
            self._put(Subtest(name=name, outcome=outcome, seconds=seconds))

    def _put(self, test: Subtest) -> None:
        """Take a result in place of one that the test has."""
        if test.name not in self.tests and len(self.tests) == self._max_named:
            self.unnamed[test.outcome] += 1
        else:
            self.tests[test.name] = test

    def _set_seconds(self, name: str, seconds: float | None) -> None:
        """Take how long the last run of a test took, which was told after its result."""
        test = self.tests.get(clean_line(name))
        if test is not None:
            self.tests[test.name] = msgspec.structs.replace(test, seconds=seconds)
