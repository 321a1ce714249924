"""Reads what kirk prints, the runner of the Linux Test Project. It ends with 0 whatever failed.

Source: libkirk/ui.py of kirk 4.2: SimpleUserInterface, VerboseUserInterface (-v), ParallelUserInterface (-w),
which names what failed only at its end.
"""

from __future__ import annotations

import re
from collections import Counter

from quizmatrix.model.subtest import MAX_NAMED, SubtestOutcome
from quizmatrix.subtests.suite import SuiteReader

PASSED, FAILED, SKIPPED = SubtestOutcome.PASSED, SubtestOutcome.FAILED, SubtestOutcome.SKIPPED

COLOUR = re.compile(r"\x1b\[[\d;]*m")
_SUITE = re.compile(r"Suite: (\S.*)")
_UNDERLINE = re.compile(r"─+")
_RESULT = re.compile(
    r"(?:(?P<lost>[\w.+-]+): )?(?P<name>[\w.+-]+)(?: \(\d+/\d+\))?: "
    r"(?:(?P<word>pass|fail|skip|broken)?(?: \| tainted)? +\((?P<time>\d[\dhms. ]*)\)"
    r"|(?P<instead>timed out|kernel panic|SUT not responding))"
)
_WORDS = {
    "fail": FAILED,
    "broken": FAILED,
    "skip": SKIPPED,
    "timed out": SubtestOutcome.KILLED,
    "kernel panic": FAILED,
    "SUT not responding": FAILED,
}
_BEGINS = re.compile(r"Executing: (\S+).*")
_COUNT = re.compile(r"(?P<word>passed|failed|broken|skipped|warnings) +(?P<count>\d{1,9})")
_DURATION = re.compile(r"Duration: (.*)")
_END = re.compile(r"Execution time: .*")
_LIST = re.compile(r"(?:Broken|Failures):")
_LISTED = re.compile(r"\s+• (\S+)")
_TIME = re.compile(r"(?:(\d{1,9})h )?(?:(\d{1,9})m )?(\d{1,9}(?:\.\d{1,30})?)s?")

# How lines of this format begin, after blanks.
LINES = (
    "Suite: |─|Executing: |Duration: |Execution time: |Broken:|Failures:|• "
    "|(?:passed|failed|broken|skipped|warnings) {1,9}\\d"
    "|(?:\x1b\\[[\\d;]{1,8}m)?[\\w.+-]{1,80}(?: \\(\\d{1,9}/\\d{1,9}\\))?: "
    "(?:\x1b\\[[\\d;]{1,8}m){0,2}"
    "(?:[\\w.+-]{1,80}: |pass|fail|skip|broken| {1,2}[(|]|timed out|kernel panic|SUT not)"
    "|\x1b\\[[\\d;]{1,8}m(?:Broken|Failures):"
).encode()


class KirkReader(SuiteReader):
    """Reads kirk's lines, which stand between the heading of a suite and its `Execution time:`.

    is_on: whether the line that was the last is between them.
    """

    def __init__(self, max_named: int = MAX_NAMED) -> None:
        """See SuiteReader."""
        super().__init__(max_named)
        self.is_on = False
        self._is_heading = self._is_list = False
        # Of the test that `kirk -v` has begun.
        self._counts: Counter[str] = Counter()

    def feed(self, line: str) -> None:
        """See SuiteReader."""
        line = COLOUR.sub("", line)
        was_heading, self._is_heading = self._is_heading, bool(_SUITE.fullmatch(line))
        if was_heading and _UNDERLINE.fullmatch(line):
            self.is_known = self.is_on = self.is_unfinished = True
            self._is_list = False
        elif not self.is_known:
            return
        elif _END.fullmatch(line):
            self.is_on = self.is_unfinished = False
            self.running = ""
        elif self.is_on:
            self._take(line)
        elif _LIST.fullmatch(line):
            self._is_list = True
        elif self._is_list and (match := _LISTED.fullmatch(line)):
            self._keep(match[1], FAILED)

    def _take(self, line: str) -> None:
        if self.running:
            if match := _COUNT.fullmatch(line):
                self._counts[match["word"]] += int(match["count"])
            elif match := _DURATION.fullmatch(line):
                self._keep(self.running, _by_counts(self._counts), seconds_of(match[1]))
                self.running = ""
        elif match := _RESULT.fullmatch(line):
            outcome = _WORDS.get(match["word"] or match["instead"], PASSED)
            self._keep(match["name"], outcome, seconds_of(match["time"]))
            if match["lost"]:
                self._keep(match["lost"], FAILED)
        elif match := _BEGINS.fullmatch(line):
            self.running = match[1].rpartition("/")[2]
            self._counts = Counter()


def _by_counts(counts: Counter[str]) -> SubtestOutcome:
    """How a test ended. Where it has no counts, the lists at kirk's end say whether it failed."""
    if counts["failed"] or counts["broken"] or counts["warnings"]:
        return FAILED
    return SKIPPED if counts["skipped"] and not counts["passed"] else PASSED


def seconds_of(text: str | None) -> float | None:
    """Seconds of `1h 2m 3s`, `0.005s` or `75`; None if it is no time."""
    match = _TIME.fullmatch(text or "")
    if match is None:
        return None
    return 3600 * int(match[1] or 0) + 60 * int(match[2] or 0) + round(float(match[3]), 3)
