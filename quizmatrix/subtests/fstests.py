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
    rb"|(?:FSTYP|SECTION)[ \t]{1,20}-- |Failures: |Failed \d{1,9} of|Passed all \d|Interrupted!"
    rb"|_check_\w{1,60}: |runtime[ \t]"
)

_NAME = r"[a-z][\w-]*/(?:\d{3,4}|\*\*\*)"
_HEADING = re.compile(r"(FSTYP|SECTION)\s+-- (\S+).*")
_LINE = re.compile(rf"({_NAME})(\s.*)?")
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
        # Whether the line that was the last is between the heading and the end of a section.
        self._is_on = self._is_broken_off = False
        # Tests whose lines do not say how they ended (check -d): the end of the section does.
        self._open: list[str] = []

    def feed(self, line: str) -> None:
        """See SuiteReader."""
        if match := _HEADING.fullmatch(line):
            self._last = ""
            if match[1] == "SECTION":
                self._section = f" ({match[2]})"
            else:
                self.is_known = self.is_unfinished = self._is_on = True
        elif line == "Interrupted!":
            self._is_broken_off = self._is_on
        elif not self._is_on:
            return
        elif match := _LINE.fullmatch(line):
            self._take(match[1] + self._section, match[2] or "")
        elif _CHECKED.fullmatch(line):
            if self._last:
                self._keep(self._last, _FAILED)
        elif line.startswith("Failures: "):
            for word in line.split()[1:]:
                if _LINE.fullmatch(word):
                    self._keep(word + self._section, _FAILED)
        elif _END.fullmatch(line):
            self._end()

    def _take(self, name: str, told: str) -> None:
        # A name alone is listed (check -n). A test that ran several times (-L) has such a line at its end.
        if not told.strip() or " aggregate results across " in told:
            return
        took = _TOOK.fullmatch(told)
        self._last = name
        if "[not run]" in told or "[expunged]" in told:
            self._keep(name, _SKIPPED)
        elif _IS_FAILURE.search(told):
            self._keep(name, _FAILED)
        elif took is not None:
            self._keep(name, _PASSED, float(took[1]))
        else:
            self._open.append(name)

    def _end(self) -> None:
        for name in self._open:
            self._keep(name, _PASSED)
        self._open.clear()
        self._is_on = False
        self.is_unfinished = self._is_broken_off


_WORDS = {"passed": _PASSED, "failed": _FAILED, "not run": _SKIPPED}
_RUNTIME = re.compile(r"\d{1,9}(?:\.\d{1,9})?s")


class BlktestsReader(SuiteReader):
    """Reads the output of blktests.

    What a test ran with stands behind its name: `block/004 (nvme0n1)`, `nvme/003 (tr=tcp)`.
    """

    def __init__(self, max_named: int = MAX_NAMED) -> None:
        """See SuiteReader."""
        super().__init__(max_named)
        self._last = ""
        # Whether the lines are those of xfstests, which are similar.
        self._is_other = False

    def feed(self, line: str) -> None:
        """See SuiteReader."""
        if _HEADING.fullmatch(line):
            self._is_other = True
        elif self._is_other:
            self._is_other = not _END.fullmatch(line)
        elif match := _LINE.fullmatch(line):
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
        devices, _, rest = told.strip().partition("(")
        words = [*devices.removeprefix("=>").split(), *_condition("(" + rest)]
        name += f" ({' '.join(words)})" if words else ""
        self._last = name if outcome else ""
        self.running = "" if outcome else name
        if outcome is not None:
            self.is_known = True
            self._keep(name, outcome)


def _condition(brackets: str) -> list[str]:
    """What a test ran with, where that stands in brackets before its description: `(tr=tcp) (connect)`."""
    depth = 0
    for place, character in enumerate(brackets):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return [brackets[1:place]] if brackets[place + 1 :].lstrip().startswith("(") else []
    return []
