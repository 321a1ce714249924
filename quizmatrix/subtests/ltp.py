"""Reads the results of the Linux Test Project: its programs', ltp-pan's, kirk's, and kirk's JSON report.

Sources: lib/tst_test.c and lib/tst_res.c (a program's own lines), pan/ltp-pan.c (write_test_start and
write_test_end), libkirk/ui.py and libkirk/export.py of kirk 4.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from quizmatrix.model.subtest import MAX_NAMED, SubtestOutcome
from quizmatrix.subtests.suite import SuiteReader

_PASSED, _FAILED = SubtestOutcome.PASSED, SubtestOutcome.FAILED
_SKIPPED, _KILLED = SubtestOutcome.SKIPPED, SubtestOutcome.KILLED

# The words of a program's lines and its summary, of kirk's lines and its report. A program that warns ends
# with an exit status other than 0, as one that fails.
_WORDS = {
    **dict.fromkeys(("PASS", "pass", "passed"), _PASSED),
    **dict.fromkeys(("FAIL", "fail", "failed", "kernel panic", "SUT not responding"), _FAILED),
    **dict.fromkeys(("BROK", "brok", "broken", "WARN", "warn", "warnings"), _FAILED),
    **dict.fromkeys(("CONF", "conf", "skip", "skipped"), _SKIPPED),
    "timed out": _KILLED,
}
# Of several results of one test the last of these counts.
_RANKS = (_SKIPPED, _PASSED, _FAILED, _KILLED)
# The bit of an exit status which says that the machine lacks what a test needs (TCONF, tst_res_flags.h).
_NOT_HERE = 32
# How the names of files begin that are the library's, and no test's.
_LIBRARY = "tst_"

_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_LINE = re.compile(r"(?P<file>[\w.+-]+)(?::\d+:|\s+\d+)\s+T(?P<word>PASS|FAIL|BROK|CONF|WARN)\s*:.*")
_SUMMARY = re.compile(r"Summary:")
_PAN_BEGINS = re.compile(r"tag=(\S+) stime=.*")
_PAN_ENDS = re.compile(
    r"duration=(?P<seconds>\d+) termination_type=(?P<how>\w+) termination_id=(?P<status>\d{1,9})\b.*"
)
_KIRK = re.compile(
    r"(?P<name>[\w.+-]+): (?P<word>pass|fail|skip|broken|timed out|kernel panic|SUT not responding)"
    r"(?: \| tainted)?(?: +\((?P<time>[^()]*)\))?"
)
_VERBOSE_BEGINS = re.compile(r"Executing: (\S+).*")
_VERBOSE_COUNT = re.compile(r"(?P<word>passed|failed|broken|skipped|warnings) +(?P<count>\d{1,9})")
_VERBOSE_ENDS = re.compile(r"Duration: (.*)")
_JSON = re.compile(r'\s*"(?P<key>test_fqn|status|duration)": "?(?P<value>[^"]*?)"?,?')
_TIME = re.compile(r"(?:(\d{1,9})h )?(?:(\d{1,9})m )?(\d{1,9}(?:\.\d{1,30})?)s?")

# How lines of these formats begin, after blanks.
LINES = (
    rb"(?:\x1b\[[\d;]{1,8}m)?[\w.+-]{1,80}(?:"
    rb"(?::\d{1,9}:|[ \t]{1,9}\d{1,9})[ \t]{1,9}T(?:PASS|FAIL|BROK|CONF|WARN)\b"
    rb"|: (?:\x1b\[[\d;]{1,8}m){0,2}(?:pass|fail|skip|broken|timed out|kernel panic|SUT not))"
    rb"|tag=|duration=|Executing: |Duration: |Summary:"
    rb'|(?:passed|failed|broken|skipped|warnings) {2,9}\d|"(?:test_fqn|status|duration)": '
)


class LtpReader(SuiteReader):
    """Reads LTP's results. A test is what the runner calls so; without a runner, a program."""

    def __init__(self, max_named: int = MAX_NAMED) -> None:
        """See SuiteReader."""
        super().__init__(max_named)
        self._kinds: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], None]], ...] = (
            (_LINE, self._take_line),
            (_KIRK, self._take_kirk),
            (_PAN_BEGINS, self._begin_pan),
            (_PAN_ENDS, self._end_pan),
            (_VERBOSE_BEGINS, self._begin_verbose),
            (_VERBOSE_COUNT, self._take_count),
            (_VERBOSE_ENDS, self._end_verbose),
            (_SUMMARY, self._end_program),
            (_JSON, self._take_json),
        )
        # What pan or `kirk -v` has begun; and without them, the program whose lines were the last.
        self._pans = self._verbose = self._program = ""
        # The worst outcome of these so far.
        self._worst: SubtestOutcome | None = None
        # The test of kirk's report.
        self._reported = ""

    def feed(self, line: str) -> None:
        """See SuiteReader."""
        line = _COLOUR.sub("", line)
        for pattern, take in self._kinds:
            if match := pattern.fullmatch(line):
                take(match)
                return

    def finish(self) -> None:
        """See SuiteReader."""
        self.running = self._pans or self._verbose
        self.is_unfinished = bool(self.running)

    def _result(self, name: str, outcome: SubtestOutcome | None, seconds: float | None = None) -> None:
        self.is_known = True
        self._keep(name, outcome or _FAILED, seconds)

    def _add(self, outcome: SubtestOutcome) -> None:
        if self._worst is None or _RANKS.index(outcome) > _RANKS.index(self._worst):
            self._worst = outcome

    def _take_line(self, match: re.Match[str]) -> None:
        name = match["file"].removesuffix(".c").removesuffix(".sh")
        if self._pans or self._verbose:
            self._add(_WORDS[match["word"]])
            return
        if name.startswith(_LIBRARY):
            name = self._program or "ltp"
        if name != self._program:
            self._program, self._worst = name, None
        self._add(_WORDS[match["word"]])
        self._result(name, self._worst)

    def _end_program(self, _match: re.Match[str]) -> None:
        self._program = ""

    def _take_kirk(self, match: re.Match[str]) -> None:
        self._result(match["name"], _WORDS[match["word"]], _seconds(match["time"]))

    def _begin_pan(self, match: re.Match[str]) -> None:
        self.is_known = True
        self._pans, self._verbose, self._worst = match[1], "", None

    def _end_pan(self, match: re.Match[str]) -> None:
        if not self._pans:
            return
        status = int(match["status"])
        outcome = _SKIPPED if status else _PASSED
        if match["how"] == "driver_interrupt":
            outcome = _KILLED
        elif match["how"] != "exited" or status & ~_NOT_HERE:
            outcome = _FAILED
        self._result(self._pans, outcome, _seconds(match["seconds"]))
        self._pans = ""

    def _begin_verbose(self, match: re.Match[str]) -> None:
        self.is_known = True
        self._verbose, self._pans, self._worst = match[1].rpartition("/")[2], "", None

    def _take_count(self, match: re.Match[str]) -> None:
        if self._verbose and int(match["count"]):
            self._add(_WORDS[match["word"]])

    def _end_verbose(self, match: re.Match[str]) -> None:
        if self._verbose:
            self._result(self._verbose, self._worst, _seconds(match[1]))
            self._verbose = ""

    def _take_json(self, match: re.Match[str]) -> None:
        key, value = match["key"], match["value"]
        if key == "test_fqn":
            self._reported = value
        elif self._reported and key == "status":
            self._result(self._reported, _WORDS.get(value))
        elif self._reported:
            self._set_seconds(self._reported, _seconds(value))
            self._reported = ""


def _seconds(text: str | None) -> float | None:
    match = _TIME.fullmatch(text or "")
    if match is None:
        return None
    return 3600 * int(match[1] or 0) + 60 * int(match[2] or 0) + round(float(match[3]), 3)
