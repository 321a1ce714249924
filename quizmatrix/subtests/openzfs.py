"""Reads the output of OpenZFS's test runner (tests/test-runner/bin/test-runner.py.in, Cmd.log)."""

from __future__ import annotations

import re
from collections import Counter

from quizmatrix.core.text import clean_line
from quizmatrix.model.subtest import MAX_NAMED, Subtest, SubtestOutcome

# A result line of the runner; since 2.4 it begins with the time.
_TEST = re.compile(
    r"(?:\[[-\d:.T]+\] )?Test(?: \((?P<identifier>[^()]*)\))?: (?P<path>\S.*?) \(run as [^()]*\)\s+"
    r"\[\d+:\d\d\] \[(?P<outcome>PASS|FAIL|SKIP|KILLED)\](?P<reran> \(RERAN\))?"
)
_COUNT = re.compile(r"(PASS|FAIL|SKIP|KILLED)\s+(\d{1,9})")
# Lines that only the runner prints, or the report of zfs-tests.sh after it (zts-report.py). If no test ran,
# the runner prints nothing and only the report is left: in 2.4.3 one sentence, with exit status 0.
_SIGN = re.compile(
    r"Running Time:\t\d+:\d\d:\d\d|No test results were found\."
    r"|Tests with results? (?:other than|of) PASS that are (?:un)?expected:"
)
_SUMMARY = "Results Summary"
_ROOT = "/zfs-tests/tests/"
_WORDS = {
    "PASS": SubtestOutcome.PASSED,
    "FAIL": SubtestOutcome.FAILED,
    "SKIP": SubtestOutcome.SKIPPED,
    "KILLED": SubtestOutcome.KILLED,
}


class RunnerReader:
    """Reads the output of OpenZFS's test runner. If a test ran twice, its last result counts.

    tests: by name. unnamed: the number of further tests, by outcome.
    """

    def __init__(self, max_named: int = MAX_NAMED) -> None:
        """max_named: how many tests are kept by name. The results are complete after `finish`."""
        self._max_named = max_named
        self.is_known = False
        self.tests: dict[str, Subtest] = {}
        self.unnamed: Counter[SubtestOutcome] = Counter()
        self._told: Counter[SubtestOutcome] = Counter()
        self._totals: Counter[SubtestOutcome] | None = None

    def feed(self, line: str) -> None:
        """Take the next line."""
        if match := _TEST.fullmatch(line):
            self._take(match)
        elif line == _SUMMARY:
            self.finish()
            self.is_known = True
            self._totals = Counter()
        elif _SIGN.match(line):
            self.finish()
            self.is_known = True
        elif self._totals is not None and (match := _COUNT.fullmatch(line)):
            self._totals[_WORDS[match[1]]] += int(match[2])

    def finish(self) -> None:
        """The output or a summary has ended. With -q, passes have no names: only the summary counts them."""
        if self._totals is not None:
            self.unnamed += self._totals - self._told
            self._totals = None
            self._told.clear()

    def _take(self, match: re.Match[str]) -> None:
        self.is_known = True
        outcome = _WORDS[match["outcome"]]
        self._told[outcome] += 1
        _, root, below = match["path"].partition(_ROOT)
        name = clean_line(below if root and below else match["path"])
        name += f" ({clean_line(match['identifier'])})" if match["identifier"] else ""
        before = self.tests.get(name)
        if before is None and len(self.tests) == self._max_named:
            self.unnamed[outcome] += 1
            return
        failed = match["reran"] is not None
        failed |= before is not None and (before.outcome.is_bad or before.failed_before)
        self.tests[name] = Subtest(name=name, outcome=outcome, failed_before=failed and not outcome.is_bad)
