"""Reads the output of OpenZFS's test runner (tests/test-runner/bin/test-runner.py.in, Cmd.log)."""

from __future__ import annotations

import re
from collections import Counter

from quizmatrix.core.text import clean_line
from quizmatrix.model.subtest import MAX_NAMED, Subtest, SubtestOutcome
from quizmatrix.subtests.suite import SuiteReader

# A result line of the runner; since 2.4 it begins with the time.
_TEST = re.compile(
    r"(?:\[[-\d:.T]+\] )?Test(?: \((?P<identifier>[^()]*)\))?: (?P<path>\S.*?) \(run as [^()]*\)\s+"
    r"\[(?P<minutes>\d{1,9}):(?P<seconds>\d\d)\] \[(?P<outcome>PASS|FAIL|SKIP|KILLED)\](?P<reran> \(RERAN\))?"
)
_COUNT = re.compile(r"(PASS|FAIL|SKIP|KILLED)\s+(\d{1,9})")
# The report of zfs-tests.sh (zts-report.py.in): headings, and lines for single tests below them.
_HEADING = re.compile(r"Tests with results? (?:other than|of) PASS that are (un)?expected:")
_REPORTED = re.compile(r"\s+(FAIL|SKIP|KILLED) (\S+) \((.*)\)")
# Lines that only the runner prints, or the report of zfs-tests.sh after it (zts-report.py). If no test ran,
# the runner prints nothing and only the report is left: in 2.4.3 one sentence, with exit status 0.
_SIGN = re.compile(
    r"Running Time:\t\d+:\d\d:\d\d|No test results were found\."
    r"|Tests with results? (?:other than|of) PASS that are (?:un)?expected:"
)
_SUMMARY = "Results Summary"
_ROOT = "/zfs-tests/tests/"
# Folders that its report and its lists leave out of the names.
_UNLISTED = ("functional/", "perf/regression/")
_WORDS = {
    "PASS": SubtestOutcome.PASSED,
    "FAIL": SubtestOutcome.FAILED,
    "SKIP": SubtestOutcome.SKIPPED,
    "KILLED": SubtestOutcome.KILLED,
}


class RunnerReader(SuiteReader):
    """Reads the output of OpenZFS's test runner. If a test ran twice, its last result counts.

    reported_expected: why, by test (see listed_name), the suite's own report expects a result other than a
    pass. reported_unexpected: the results that it does not expect, as the runner's words.
    """

    def __init__(self, max_named: int = MAX_NAMED) -> None:
        """See SuiteReader."""
        super().__init__(max_named)
        self.reported_expected: dict[str, str] = {}
        self.reported_unexpected: dict[str, str] = {}
        self._is_expected: bool | None = None
        self._told: Counter[SubtestOutcome] = Counter()
        self._totals: Counter[SubtestOutcome] | None = None

    def feed(self, line: str) -> None:
        """Take the next line."""
        if match := _TEST.fullmatch(line):
            self._take(match)
        elif line == _SUMMARY:
            self.finish()
            self.is_known = True
            self.is_unfinished = False
            self._totals = Counter()
        elif _SIGN.match(line):
            self.finish()
            self.is_known = True
            heading = _HEADING.fullmatch(line)
            self._is_expected = heading[1] is None if heading else None
        elif self._is_expected is not None and (match := _REPORTED.fullmatch(line)):
            self._take_reported(match, self._is_expected)
        elif self._totals is not None and (match := _COUNT.fullmatch(line)):
            self._totals[_WORDS[match[1]]] += int(match[2])

    def finish(self) -> None:
        """The output or a summary has ended. With -q, passes have no names: only the summary counts them."""
        if self._totals is not None:
            self.unnamed += self._totals - self._told
            self._totals = None
            self._told.clear()

    def _take_reported(self, match: re.Match[str], is_expected: bool) -> None:
        result, name, why = match.groups()
        told = self.reported_expected if is_expected else self.reported_unexpected
        if len(told) < self._max_named:
            told[clean_line(name)] = clean_line(why) if is_expected else result

    def _take(self, match: re.Match[str]) -> None:
        self.is_known = self.is_unfinished = True
        outcome = _WORDS[match["outcome"]]
        self._told[outcome] += 1
        name = name_of(match["path"])
        name += f" ({match['identifier']})" if match["identifier"] else ""
        before = self.tests.get(clean_line(name))
        failed = match["reran"] is not None
        failed |= before is not None and (before.outcome.is_bad or before.failed_before)
        self._put(
            Subtest(
                name=clean_line(name),
                outcome=outcome,
                failed_before=failed and not outcome.is_bad,
                seconds=60.0 * int(match["minutes"]) + int(match["seconds"]),
            )
        )


def name_of(path: str) -> str:
    """A test's name, from its path in the guest."""
    _, root, below = path.partition(_ROOT)
    return clean_line(below if root and below else path)


def without_mark(name: str) -> str:
    """A test's name without its section's mark, which the runner appends: `functional/acl/x (Linux)`."""
    return name.partition(" (")[0]


def listed_name(name: str) -> str:
    """A test's name as OpenZFS's report and lists have it."""
    name = without_mark(name)
    for folder in _UNLISTED:
        name = name.removeprefix(folder)
    return name
