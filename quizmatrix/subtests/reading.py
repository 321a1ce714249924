"""Reads the results of single tests from a command's output and its kernel's console.

They are TAP's, KTAP's, and those of OpenZFS's test runner.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import msgspec

from quizmatrix.core import offload, paths
from quizmatrix.core.concurrency import in_thread
from quizmatrix.model.subtest import MOST_NAMED, Subtest, SubtestOutcome
from quizmatrix.subtests.kernellog import CONSOLE_LINE, STAMP, TEXT, WORDS, KernelTests, Remembered
from quizmatrix.subtests.openzfs import RunnerReader
from quizmatrix.subtests.tap import TapReader

# The list of a cell's subtests, in its folder.
FILE = "subtests.json"

# Where results are looked for in that folder, and the bytes that are looked through in a moment.
_READ = ("stdout", "console.log")
_SHORT = 1 << 20

# Bytes read at a time.
_CHUNK = 1 << 18
# Bytes of a line that are looked at: a longer one is judged by its beginning.
_LONGEST_LINE = 4096
# Lines of interest that are read: no tests are that many, and a guest must not keep us for an hour.
MOST_LINES = 2_000_000
# Lines that may matter, of the kernel's and of the command's own. A stream may be a gigabyte long, so the
# others are passed over without a look.
_OWN = (
    rb"(?P<own>[ \t]*(?:not ok|ok|\d+\.\.\d|K?TAP version|Bail out!|# Subtest|Tests? |Test:"
    rb"|(?:#[ \t]+){1,16}(?:(?:not )?ok \d|1\.\.\d|K?TAP version)"
    rb"|\[[-\d:.T]{1,32}\] Test|Results Summary|Running Time:|No test results|(?:PASS|FAIL|SKIP|KILLED)[ \t])"
    rb"[^\n]*)"
)
_OWN_LINE = re.compile(rb"\n" + _OWN)
_OUTPUT_LINE = re.compile(rb"\n(?:" + _OWN + rb"|" + STAMP + TEXT + rb")")


class SubtestSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be said of a command's tests; see the properties of Subtests."""

    counts: dict[str, int] = {}
    summary: str = ""
    limits: list[str] = []
    flaky: str = ""
    failure: str = ""
    kernel_has_some: bool = False


class Subtests(msgspec.Struct, frozen=True, kw_only=True):
    """What a command's output, and its kernel's console, say of its tests.

    is_known: whether there is something of a known format; without that the rest is empty. tests: by name, in
    the order of the output, then of the console; of a test that both have the worse outcome. unnamed: how
    many more there were whose names are not known, or are too many. missing: tests that were announced and
    did not run. bail_out: why the tests gave up, None: they did not. none_ran: the command's own tests are
    none, whatever the kernel's are. kernel_has_some: some are on the console. has_unread: there were more
    lines of results than are read, or the console that has some is not all there. has_left_out: there were
    more tests than are kept by name.
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

    @property
    def summed_up(self) -> SubtestSummary:
        """The same without the tests' names."""
        return SubtestSummary(
            counts=self.counts,
            summary=self.summary,
            limits=self.limits,
            flaky=self.flaky,
            failure=self.failure,
            kernel_has_some=self.kernel_has_some,
        )

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
    def limits(self) -> list[str]:
        """What is to be said of the limits that were met."""
        total = sum(self.counts.values())
        named = f"of {total:,} tests the first {len(self.tests):,} are kept by name"
        return [named] if self.has_left_out else []

    @property
    def flaky(self) -> str:
        """Why a pass with these results is not to be relied on: tests that failed, and passed in a rerun."""
        again = sum(test.failed_before for test in self.tests)
        return f"{again} test{'s' if again != 1 else ''} failed, then passed" if again else ""

    @property
    def failure(self) -> str:
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
        if self.has_unread:
            words.append("there were more test results than are read")
        if self.bail_out is not None:
            words.insert(0, "the tests bailed out" + (f": {self.bail_out}" if self.bail_out else ""))
        return "; ".join(words) or ("no test ran" if self.none_ran or not total else "")


async def told_of(folder: Path, is_whole: bool, console_is_whole: bool) -> SubtestSummary:
    """The same as `keep`, and nobody else waits: the guest decides how long the files are.

    HostError, too, where this host has no thread or process left.
    """
    given = (str(folder), is_whole, console_is_whole)
    sizes = [path.stat().st_size for name in _READ if (path := folder / name).exists()]
    if sum(sizes) <= _SHORT:
        return await in_thread(partial(keep, *given))
    return await offload.call(keep, *given, returns=SubtestSummary)


def keep(folder: str, is_whole: bool, console_is_whole: bool) -> SubtestSummary:
    """Read the results in a cell's folder, and write there the list of the tests that are known by name.

    is_whole, console_is_whole: see `read`. OSError where that fails.
    """
    cell = Path(folder)
    output, console = (cell / name for name in _READ)
    found = read(output, console, is_whole=is_whole, console_is_whole=console_is_whole)
    if found.tests:
        paths.write_atomic(cell / FILE, msgspec.json.format(msgspec.json.encode(found.tests)) + b"\n")
    return found.summed_up


def read(
    output: Path, console: Path | None = None, *, is_whole: bool = True, console_is_whole: bool = True
) -> Subtests:
    """The results in files that a guest wrote; nothing where there are no such files.

    is_whole, console_is_whole: whether the file has all that was written: what a part of it lacks is no news.
    OSError where a file cannot be read.
    """
    with ExitStack() as stack:

        def opened(path: Path | None) -> BinaryIO:
            if path is None or not path.is_file():
                return BytesIO()
            return stack.enter_context(path.open("rb"))

        return parse(opened(output), opened(console), is_whole=is_whole, console_is_whole=console_is_whole)


def parse(
    output: BinaryIO,
    console: BinaryIO | None = None,
    *,
    is_whole: bool = True,
    console_is_whole: bool = True,
    most_lines: int = MOST_LINES,
    most_named: int = MOST_NAMED,
) -> Subtests:
    """The results in streams of any bytes, of any length; see `read`.

    most_lines: of each that are read. most_named: tests that are kept by name.
    """
    reading = _Reading(most_lines, most_named)
    # The console first: what it has is not looked for in the output.
    if console is not None:
        reading.take_console(console, is_whole=console_is_whole)
    reading.take_output(output, is_whole=is_whole)
    return reading.conclude()


def load(folder: Path) -> list[Subtest]:
    """The list in a cell's folder; empty where there is none that can be read."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=list[Subtest])
    except (OSError, msgspec.MsgspecError):
        return []


class _Reading:
    """Four readers at work, and what is made of what they have read."""

    def __init__(self, most_lines: int, most_named: int) -> None:
        self._most_lines = most_lines
        self._most_named = most_named
        # What the command's programs say; what its kernel says, as the command prints it, and on the console.
        self._own = TapReader(most_named)
        self._runner = RunnerReader(most_named)
        self._printed = KernelTests(most_named)
        self._said = KernelTests(most_named)
        self._known = Remembered()
        self._has_unread = False

    def take_console(self, console: BinaryIO, *, is_whole: bool) -> None:
        """Read a kernel's console."""
        lines = _lines(console, CONSOLE_LINE, None)
        for match, has_ended in islice(lines, self._most_lines):
            text = _text_of(match["text"])
            # Of a line that has no end, half is a pass that may be none, or a plan of fewer tests.
            if has_ended or text.lstrip().startswith("not ok"):
                self._known.learn(match)
                self._said.feed(text)
        is_whole = is_whole and next(lines, None) is None
        self._said.finish(is_whole=is_whole)
        self._has_unread |= self._said.tap.is_known and not is_whole

    def take_output(self, output: BinaryIO, *, is_whole: bool) -> None:
        """Read a command's output, after the console."""
        lines = _lines(output, _OUTPUT_LINE, _OWN_LINE)
        for match, _ in islice(lines, self._most_lines):
            if match["own"] is not None:
                line = _text_of(match["own"])
                self._own.feed(line)
                self._runner.feed(line)
            elif self._known.is_new(match):
                self._printed.feed(_text_of(match["text"]))
        has_unread = next(lines, None) is not None
        is_whole = is_whole and not has_unread
        self._printed.finish(is_whole=is_whole)
        self._own.finish()
        self._runner.finish()
        if not self._own.is_known:
            self._own = TapReader()
        if not is_whole:
            self._own.missing = 0
            self._own.is_known = bool(self._own.tests or self._own.unnamed)
            self._runner.is_known = bool(self._runner.tests or self._runner.unnamed)
        known = (self._own.is_known, self._runner.is_known, self._printed.tap.is_known)
        self._has_unread |= has_unread and any(known)

    def conclude(self) -> Subtests:
        """What all of them have read, a test of one name being one test."""
        own, runner, kernels = self._own, self._runner, [self._printed.tap, self._said.tap]
        taps = [own, *(tap for tap in kernels if tap.is_known)]
        unnamed = runner.unnamed.copy()
        for tap in taps:
            unnamed += tap.unnamed
        lists = [own.tests, runner.tests.values(), *(tap.tests for tap in taps[1:])]
        named = _by_name(lists, unnamed, self._most_named)
        own_is_known = own.is_known or runner.is_known
        return Subtests(
            is_known=own_is_known or len(taps) > 1,
            tests=list(named.values()),
            unnamed=dict(unnamed),
            missing=sum(tap.missing for tap in taps),
            bail_out=next((tap.bail_out for tap in taps if tap.bail_out is not None), None),
            kernel_has_some=self._said.tap.is_known,
            none_ran=own_is_known and not (own.tests or own.unnamed or runner.tests or runner.unnamed),
            has_unread=self._has_unread,
            has_left_out=len(named) == self._most_named and bool(unnamed),
        )


def _by_name(
    found: Iterable[Iterable[Subtest]], unnamed: Counter[SubtestOutcome], most: int
) -> dict[str, Subtest]:
    """The first `most` tests, of one that is there twice the worse outcome; `unnamed` counts the others."""
    named: dict[str, Subtest] = {}
    for test in chain.from_iterable(found):
        before = named.get(test.name)
        if before is None and len(named) == most:
            unnamed[test.outcome] += 1
        elif before is None or _badness(test) > _badness(before):
            named[test.name] = test
    return named


def _badness(test: Subtest) -> int:
    if test.outcome.is_bad:
        return 3
    # That it was skipped elsewhere does not make what ran be skipped.
    return 0 if test.outcome is SubtestOutcome.SKIPPED else 1 + test.failed_before


def _lines(
    file: BinaryIO, pattern: re.Pattern[bytes], without_kernels: re.Pattern[bytes] | None
) -> Iterator[tuple[re.Match[bytes], bool]]:
    """The matches of `pattern`, which begins with a line feed, and whether there is one behind them.

    without_kernels: the pattern, which is a quicker one, for what cannot hold a kernel's results.
    """

    def found(data: bytes) -> Iterator[re.Match[bytes]]:
        asked = pattern if any(word in data for word in WORDS) else without_kernels
        return asked.finditer(data) if asked is not None else iter(())

    rest = b"\n"
    while chunk := file.read(_CHUNK):
        data = rest + chunk
        end = data.rfind(b"\n")
        for match in found(data[:end]):
            yield match, data[match.end() : match.end() + 1] == b"\n"
        # The end of a longer line is glued to its beginning, behind what is looked at.
        rest = data[end : end + _LONGEST_LINE]
    for match in found(rest):
        yield match, False


def _text_of(line: bytes) -> str:
    return line[: _LONGEST_LINE - 1].decode(errors="replace").rstrip()
