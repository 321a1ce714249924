"""Reads the results of xfstests and of blktests, whose runners are both named `check`.

Sources: xfstests' check; blktests' check (_output_status, _output_test_run).
"""

from __future__ import annotations

import re

from quizmatrix.model.subtest import MAX_NAMED, SubtestOutcome
from quizmatrix.subtests.suite import SuiteReader

_PASSED, _FAILED, _SKIPPED = SubtestOutcome.PASSED, SubtestOutcome.FAILED, SubtestOutcome.SKIPPED

# How lines of these formats begin, after blanks.
LINES = (
    rb"[a-z][\w-]{0,40}/(?:\d{3,4}|\*\*\*)(?![^ \t\n(])"
    rb"|(?:FSTYP|SECTION)[ \t]{1,20}-- |Failures: |Failed \d{1,9} of|Passed all \d"
    rb"|_check_\w{1,60}: |runtime[ \t]"
)

_NAME = r"[a-z][\w-]*/(?:\d{3,4}|\*\*\*)"
_HEADING = re.compile(r"(FSTYP|SECTION)\s+-- (\S+).*")
_XFSTEST = re.compile(rf"({_NAME})(\s.*)?")
_TOOK = re.compile(r".*\s(\d{1,9})s")
_IS_FAILURE = re.compile(r"\[failed,|\[dumped core\]| - ")
_END = re.compile(r"Passed all \d+ tests|Failed \d+ of \d+ tests")
# A line below a test that seemed to pass: the file system or the kernel's log is not as it has to be.
_CHECKED = re.compile(r"_check_\w+: .*")


class XfstestsReader(SuiteReader):
    """Reads the output of xfstests. Tests of a section have its name behind theirs: `xfs/001 (quota)`."""

    def __init__(self, max_named: int = MAX_NAMED) -> None:
        """See SuiteReader."""
        super().__init__(max_named)
        self._section = self._last = ""

    def feed(self, line: str) -> None:
        """See SuiteReader."""
        if match := _HEADING.fullmatch(line):
            self._last = ""
            if match[1] == "SECTION":
                self._section = f" ({match[2]})"
            else:
                self.is_known = self.is_unfinished = True
        elif not self.is_known:
            return
        elif match := _XFSTEST.fullmatch(line):
            self._take(match[1] + self._section, match[2] or "")
        elif _CHECKED.fullmatch(line):
            self._fail(self._last)
        elif line.startswith("Failures: "):
            for name in re.findall(_NAME, line):
                self._fail(name + self._section)
        elif _END.fullmatch(line):
            self.is_unfinished = False

    def _take(self, name: str, told: str) -> None:
        # Of a test that ran several times (check -L), after its results.
        if " aggregate results across " in told:
            return
        took = _TOOK.fullmatch(told)
        if "[not run]" in told or "[expunged]" in told:
            outcome = _SKIPPED
        else:
            outcome = _FAILED if took is None or _IS_FAILURE.search(told) else _PASSED
        self._last = name
        self._keep(name, outcome, float(took[1]) if took else None)

    def _fail(self, name: str) -> None:
        """Let a test fail that seemed to pass; not one that has failed before, and passed in its last run."""
        test = self.tests.get(name)
        if test is not None and not test.failed_before:
            self._keep(name, _FAILED, test.seconds)


_BLKTEST = re.compile(rf"({_NAME})( .*)?")
_WORDS = {"passed": _PASSED, "failed": _FAILED, "not run": _SKIPPED}
_RUNTIME = re.compile(r"\d{1,9}(?:\.\d{1,9})?s")


class BlktestsReader(SuiteReader):
    """Reads the output of blktests. Tests on a device have its name behind theirs: `block/004 (nvme0n1)`."""

    def __init__(self, max_named: int = MAX_NAMED) -> None:
        """See SuiteReader."""
        super().__init__(max_named)
        self._last = ""
        # Whether these are xfstests, whose lines are similar.
        self._is_other = False

    def feed(self, line: str) -> None:
        """See SuiteReader."""
        if self._is_other or _HEADING.fullmatch(line):
            self._is_other = True
        elif match := _BLKTEST.fullmatch(line):
            self._take(match[1], match[2] or "")
        elif line.lstrip().startswith("runtime") and self._last:
            last = line.split()[-1]
            if _RUNTIME.fullmatch(last):
                self._set_seconds(self._last, float(last[:-1]))

    def finish(self) -> None:
        """See SuiteReader."""
        self.running = self.running if self.is_known else ""
        self.is_unfinished = bool(self.running)

    def _take(self, name: str, told: str) -> None:
        # A line without a result is printed as a test begins: `block/004 => nvme0n1 (what it tests)`.
        told, _, word = told.rpartition("[") if told.endswith("]") else (told, "", "")
        outcome = _WORDS.get(word[:-1])
        devices = told.partition(" (")[0].removeprefix(" =>").strip() if told.startswith(" => ") else ""
        name += f" ({devices})" if devices else ""
        self._last = name if outcome else ""
        self.running = "" if outcome else name
        if outcome is not None:
            self.is_known = True
            self._keep(name, outcome)
