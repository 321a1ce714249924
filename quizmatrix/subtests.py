"""Results inside a command's output: what TAP, KTAP and OpenZFS's test runner say of single tests."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import msgspec

from quizmatrix.subtest import Subtest, SubtestOutcome
from quizmatrix.tap import TapReader
from quizmatrix.text import clean_line

# The list of a cell's subtests, in its folder.
FILE = "subtests.json"

# Bytes read at a time.
_CHUNK = 1 << 18
# Bytes of a line that are looked at: a longer one is judged by its beginning.
_LONGEST_LINE = 4096
# Lines of interest that are read: no tests are that many, and a guest must not keep us for an hour.
_MOST_LINES = 2_000_000
# Lines that may matter. A stream may be a gigabyte long, so the others are passed over without a look.
_OF_INTEREST = re.compile(
    rb"\n([ \t]*(?:not ok|ok|\d+\.\.\d|K?TAP version|Bail out!|# Subtest|Tests? |Test:"
    rb"|\[[-\d:.T]{1,32}\] Test|Results Summary|Running Time:|No test results|(?:PASS|FAIL|SKIP|KILLED)[ \t])"
    rb"[^\n]*)"
)

# The runner's console line (OpenZFS, tests/test-runner/bin/test-runner.py.in, Cmd.log), from 2.4 on with the
# time before it.
_RUNNER_TEST = re.compile(
    r"(?:\[[-\d:.T]+\] )?Test(?: \((?P<identifier>[^()]*)\))?: (?P<path>\S.*?) \(run as [^()]*\)\s+"
    r"\[\d+:\d\d\] \[(?P<outcome>PASS|FAIL|SKIP|KILLED)\](?P<reran> \(RERAN\))?"
)
_RUNNER_COUNT = re.compile(r"(PASS|FAIL|SKIP|KILLED)\s+(\d{1,9})")
# What only the runner, or the report that zfs-tests.sh prints after it (zts-report.py), says. Where no test
# ran, the runner itself says nothing, and the report is all there is: in 2.4.3 one sentence, and the exit
# status 0.
_RUNNER_SIGN = re.compile(
    r"Running Time:\t\d+:\d\d:\d\d|No test results were found\."
    r"|Tests with results? (?:other than|of) PASS that are (?:un)?expected:"
)
_RUNNER_SUMMARY = "Results Summary"
_RUNNER_ROOT = "/zfs-tests/tests/"
_RUNNER_WORDS = {
    "PASS": SubtestOutcome.PASSED,
    "FAIL": SubtestOutcome.FAILED,
    "SKIP": SubtestOutcome.SKIPPED,
    "KILLED": SubtestOutcome.KILLED,
}


class Subtests(msgspec.Struct, frozen=True, kw_only=True):
    """What a command's output says of its tests.

    is_known: whether the output is of a known format; without that the rest is empty. tests: by name, in the
    order of the output. unnamed: how many more there were whose names are not known, or are too many.
    missing: tests that were announced and did not run. bail_out: why the tests gave up, None: they did not.
    """

    is_known: bool = False
    tests: list[Subtest] = []
    unnamed: dict[SubtestOutcome, int] = {}
    missing: int = 0
    bail_out: str | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many tests ended with each outcome that occurred."""
        counted = Counter(test.outcome for test in self.tests) + Counter(self.unnamed)
        return {str(outcome): counted[outcome] for outcome in SubtestOutcome if counted[outcome]}

    @property
    def summary(self) -> str:
        """`tests: 11 passed, 2 failed, 1 not run`; empty where the output is of no known format."""
        words = [f"{count} {outcome}" for outcome, count in self.counts.items()]
        words += [f"{self.missing} not run"] if self.missing else []
        return f"tests: {', '.join(words) or 'none'}" if self.is_known else ""

    @property
    def luck(self) -> str:
        """Why a pass with these results is not to be relied on: tests that failed, and passed in a rerun."""
        again = sum(test.failed_before for test in self.tests)
        return f"{again} test{'s' if again != 1 else ''} failed, then passed" if again else ""

    @property
    def complaint(self) -> str:
        """Why a command with these results has not passed, whatever its exit status; empty where it may."""
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
        if self.bail_out is not None:
            words.insert(0, "the tests bailed out" + (f": {self.bail_out}" if self.bail_out else ""))
        return "; ".join(words) or ("" if total else "no test ran")


def read(path: Path, *, is_whole: bool = True) -> Subtests:
    """The results in a file that a guest wrote; nothing where there is no such file.

    is_whole: whether the file has all of the output: what a part of it lacks is no news. OSError where the
    file cannot be read.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return Subtests()
    with file:
        found = parse(file)
    if is_whole:
        return found
    return msgspec.structs.replace(found, missing=0, is_known=bool(found.counts))


def parse(file: BinaryIO) -> Subtests:
    """The results in a stream of any bytes, of any length."""
    tap, runner = TapReader(), _RunnerReader()
    taken = 0
    for line in islice(_lines(file), _MOST_LINES):
        taken += 1
        tap.feed(line)
        runner.feed(line)
    tap.finish()
    runner.finish()
    if not tap.is_known:
        tap = TapReader()
    return Subtests(
        is_known=tap.is_known or runner.is_known,
        tests=[*tap.tests, *runner.tests.values()],
        unnamed=dict(tap.unnamed + runner.unnamed),
        missing=tap.missing if taken < _MOST_LINES else 0,
        bail_out=tap.bail_out,
    )


def load(folder: Path) -> list[Subtest]:
    """The list in a cell's folder; empty where there is none that can be read."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=list[Subtest])
    except (OSError, msgspec.MsgspecError):
        return []


def _lines(file: BinaryIO) -> Iterator[str]:
    rest = b"\n"
    while chunk := file.read(_CHUNK):
        data = rest + chunk
        end = data.rfind(b"\n")
        yield from _of_interest(data[:end])
        # The end of a longer line is glued to its beginning, behind what is looked at.
        rest = data[end : end + _LONGEST_LINE]
    yield from _of_interest(rest)


def _of_interest(data: bytes) -> Iterator[str]:
    for match in _OF_INTEREST.finditer(data):
        yield match.group(1)[: _LONGEST_LINE - 1].decode(errors="replace").rstrip()


class _RunnerReader:
    """Reads what OpenZFS's test runner prints. Of a test that ran again the last result counts."""

    def __init__(self) -> None:
        self.is_known = False
        self.tests: dict[str, Subtest] = {}
        self.unnamed: Counter[SubtestOutcome] = Counter()
        self._told: Counter[SubtestOutcome] = Counter()
        self._totals: Counter[SubtestOutcome] | None = None

    def feed(self, line: str) -> None:
        """Take the next line."""
        if match := _RUNNER_TEST.fullmatch(line):
            self._take(match)
        elif line == _RUNNER_SUMMARY:
            self.finish()
            self.is_known = True
            self._totals = Counter()
        elif _RUNNER_SIGN.match(line):
            self.finish()
            self.is_known = True
        elif self._totals is not None and (match := _RUNNER_COUNT.fullmatch(line)):
            self._totals[_RUNNER_WORDS[match[1]]] += int(match[2])

    def finish(self) -> None:
        """A summary has ended, or the output: with -q the runner counts passes that it does not name."""
        if self._totals is not None:
            self.unnamed += self._totals - self._told
            self._totals = None
            self._told.clear()

    def _take(self, match: re.Match[str]) -> None:
        self.is_known = True
        outcome = _RUNNER_WORDS[match["outcome"]]
        self._told[outcome] += 1
        _, root, below = match["path"].partition(_RUNNER_ROOT)
        name = clean_line(below if root and below else match["path"])
        name += f" ({clean_line(match['identifier'])})" if match["identifier"] else ""
        before = self.tests.get(name)
        failed = match["reran"] is not None
        failed |= before is not None and (before.outcome.is_bad or before.failed_before)
        self.tests[name] = Subtest(name=name, outcome=outcome, failed_before=failed and not outcome.is_bad)
