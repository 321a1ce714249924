"""Reads the results of the Linux Test Project: its programs', ltp-pan's, and kirk's JSON report.

Sources: lib/tst_test.c and lib/tst_res.c (a program's own lines, since 2021), pan/ltp-pan.c (write_test_start
and write_test_end), libkirk/export.py of kirk 4.2.
"""

from __future__ import annotations

import re

from quizmatrix.model.subtest import MAX_NAMED, SubtestOutcome
from quizmatrix.subtests.kirk import COLOUR, FAILED, PASSED, SKIPPED, KirkReader, seconds_of
from quizmatrix.subtests.suite import SuiteReader

# The words of a program's lines and summary, and of kirk's report. A program that warns ends with an exit
# status other than 0, as one that fails.
_WORDS = {
    **dict.fromkeys(("PASS", "pass"), PASSED),
    **dict.fromkeys(("FAIL", "fail", "failed", "BROK", "brok", "broken", "WARN", "warn", "warnings"), FAILED),
    **dict.fromkeys(("CONF", "conf"), SKIPPED),
}
# The bit of an exit status which says that the machine lacks what a test needs (TCONF, tst_res_flags.h).
_NOT_HERE = 32
# What cannot be said of any program: the library spoke before it.
_NOBODY = "ltp"

_LINE = re.compile(r"(?P<file>[\w.+/-]+)(?::\d+:|\s+\d+)\s+T(?P<word>PASS|FAIL|BROK|CONF|WARN)\s*:.*")
# Lines of the library and of headers are the running program's.
_IS_NO_PROGRAM = re.compile(r"tst_.*|.*/.*|.*\.h")
_COUNT = re.compile(r"(?P<word>failed|broken|warnings) +[1-9]\d*")
_PAN_NAME = re.compile(r"tag=(\S+) stime=.*")
_PAN_ENDS = re.compile(
    r"duration=(?P<seconds>\d+) termination_type=(?P<how>\w+) termination_id=(?P<status>\d{1,9})\b.*"
)
_JSON = re.compile(r'\s*"(?P<key>test_fqn|status|duration)": "?(?P<value>[^"]*?)"?,?')

# How lines of these formats begin, after blanks.
LINES = (
    rb"[\w.+/-]{1,80}(?::\d{1,9}:|[ \t]{1,9}\d{1,9})[ \t]{1,9}(?:\x1b\[[\d;]{1,8}m)?"
    rb"T(?:PASS|FAIL|BROK|CONF|WARN)\b"
    rb"|<<<(?:test_start|execution_status)>>>|tag=|duration=|Summary:|(?:failed|broken|warnings) {1,9}\d"
    rb'|"(?:test_fqn|status|duration)": '
)


class LtpReader(SuiteReader):
    """Reads LTP's results. A test is what ltp-pan calls so; without a runner, a program."""

    def __init__(self, kirk: KirkReader, max_named: int = MAX_NAMED) -> None:
        """kirk: the reader of kirk's lines, which gets each line before this. max_named: see SuiteReader."""
        super().__init__(max_named)
        self._kirk = kirk
        # The program without a runner whose line was the last, and whether its summary has begun.
        self._program = ""
        self._is_summary = False
        # Of ltp-pan: the test that has begun, and the marker that was the last.
        self._marker = ""
        # The test of kirk's report.
        self._reported = ""

    def feed(self, line: str) -> None:
        """See SuiteReader."""
        if self._kirk.is_on:
            return
        line = COLOUR.sub("", line)
        if line in ("<<<test_start>>>", "<<<execution_status>>>"):
            self.is_known = True
            self._marker = line
        elif self._marker == "<<<test_start>>>" and (match := _PAN_NAME.fullmatch(line)):
            self.running, self._marker = match[1], "<<<test_output>>>"
        elif self.running:
            # What a test of ltp-pan's prints says less than how it ended.
            if self._marker == "<<<execution_status>>>" and (match := _PAN_ENDS.fullmatch(line)):
                self._end_pan(match)
        elif match := _LINE.fullmatch(line):
            self._take_line(match)
        elif line == "Summary:":
            self._is_summary = bool(self._program)
        elif self._is_summary and (match := _COUNT.fullmatch(line)):
            self._result(self._program, _WORDS[match["word"]])
        elif match := _JSON.fullmatch(line):
            self._take_json(match)

    def finish(self) -> None:
        """See SuiteReader."""
        self.is_unfinished = bool(self.running)

    def _result(self, name: str, outcome: SubtestOutcome, seconds: float | None = None) -> None:
        self.is_known = True
        self._keep(name, outcome, seconds)

    def _take_line(self, match: re.Match[str]) -> None:
        if self._is_summary:
            # Another program, or the same once more.
            self._program, self._is_summary = "", False
        if _IS_NO_PROGRAM.fullmatch(match["file"]):
            name = self._program or _NOBODY
        else:
            name = self._program = match["file"].removesuffix(".c").removesuffix(".sh")
        self._result(name, _WORDS[match["word"]])

    def _end_pan(self, match: re.Match[str]) -> None:
        status = int(match["status"])
        outcome = SKIPPED if status else PASSED
        if match["how"] == "driver_interrupt":
            outcome = SubtestOutcome.KILLED
        elif match["how"] != "exited" or status & ~_NOT_HERE:
            outcome = FAILED
        self._result(self.running, outcome, seconds_of(match["seconds"]))
        self.running = self._marker = ""

    def _take_json(self, match: re.Match[str]) -> None:
        key, value = match["key"], match["value"]
        if key == "test_fqn":
            self._reported = value
        elif self._reported and key == "status":
            self._result(self._reported, _WORDS.get(value, FAILED))
        elif self._reported:
            self._set_seconds(self._reported, seconds_of(value))
            self._reported = ""
