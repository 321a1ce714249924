"""Reads the results of single tests from a command's output and its kernel's console.

The formats are TAP, KTAP, and those of OpenZFS's test runner, LTP, xfstests and blktests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import msgspec

from quizmatrix.core import paths
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.json import decode_exactly, encode_exactly
from quizmatrix.model.known import KnownFailure
from quizmatrix.model.subtest import MAX_NAMED, Subtest, SubtestOutcome
from quizmatrix.subtests import running
from quizmatrix.subtests.kernellog import KernelTests, SeenLines
from quizmatrix.subtests.known import apply_known, apply_suite, unexpected_skips
from quizmatrix.subtests.lines import OutputLines, console_lines, text_of
from quizmatrix.subtests.openzfs import RunnerReader, without_mark
from quizmatrix.subtests.openzfslists import SuiteLists, read_lists
from quizmatrix.subtests.suite import SuiteReader
from quizmatrix.subtests.summary import Subtests, SubtestSummary, SuiteEnd
from quizmatrix.subtests.tap import TapReader

# The list of a cell's subtests, in its folder.
FILE = "subtests.json"

# The files in that folder that may have results. Up to _SHORT bytes of them are read without a new process.
_READ = ("stdout", "console.log")
_SHORT = 1 << 20

# The largest number of lines that are read: no test suite has more, and a guest must not keep us for an hour.
MAX_LINES = 2_000_000


class CellOutput(msgspec.Struct, frozen=True, kw_only=True):
    """A cell's output, and what is known of its tests.

    folder: the cell's folder. is_whole, console_is_whole: see `read`. known, known_quietly: see GuestLimits.
    layers: folders that are laid over each other in the guest, the lowest first; a suite there may have lists
    of its own. live: the file about the test that was running (see running.LIVE), where the guest died or was
    stopped.
    """

    folder: str
    is_whole: bool = True
    console_is_whole: bool = True
    known: list[KnownFailure] = []
    known_quietly: list[KnownFailure] = []
    layers: list[str] = []
    live: str | None = None


async def keep_without_blocking(output: CellOutput) -> SubtestSummary:
    """Like `keep`, without blocking the event loop: a guest decides how long the files are.

    Also raises HostError if this host has no thread or process left.
    """
    folder = Path(output.folder)
    given = encode_exactly(output).decode()
    sizes = [path.stat().st_size for name in _READ if (path := folder / name).exists()]
    if sum(sizes) <= _SHORT:
        return await in_thread(partial(keep, given))
    from quizmatrix.core import offload

    return await offload.call(keep, given, returns=SubtestSummary)


def keep(given: str) -> SubtestSummary:
    """Read the results in a cell's folder, and write the list of the named tests there.

    given: a CellOutput as JSON. Raises OSError if a file cannot be read or written.
    """
    cell = decode_exactly(given.encode(), CellOutput)
    folder = Path(cell.folder)
    output, console = (folder / name for name in _READ)
    found = read(
        output,
        console,
        is_whole=cell.is_whole,
        console_is_whole=cell.console_is_whole,
        known=cell.known,
        known_quietly=cell.known_quietly,
        layers=cell.layers,
    )
    if found.tests:
        paths.write_atomic(folder / FILE, msgspec.json.format(msgspec.json.encode(found.tests)) + b"\n")
    summary = found.summed_up
    if cell.live is None:
        return msgspec.structs.replace(summary, running="")
    # What OpenZFS's runner has begun, its tests' own output may hide.
    begun = running.announced(console)
    begun = "" if any(begun in (test.name, without_mark(test.name)) for test in found.tests) else begun
    begun = running.take(Path(cell.live), folder) or begun or summary.running
    return msgspec.structs.replace(summary, running=begun)


def read(
    output: Path,
    console: Path | None = None,
    *,
    is_whole: bool = True,
    console_is_whole: bool = True,
    known: Sequence[KnownFailure] = (),
    known_quietly: Sequence[KnownFailure] = (),
    layers: Sequence[str] = (),
) -> Subtests:
    """The results in files that a guest wrote; empty if the files do not exist.

    is_whole, console_is_whole: whether the file is complete. In an incomplete file, announced tests that are
    missing do not count as not run. The others: see CellOutput. Raises OSError if a file cannot be read.
    """
    with ExitStack() as stack:

        def opened(path: Path | None) -> BinaryIO:
            if path is None or not path.is_file():
                return BytesIO()
            return stack.enter_context(path.open("rb"))

        return parse(
            opened(output),
            opened(console),
            is_whole=is_whole,
            console_is_whole=console_is_whole,
            known=known,
            known_quietly=known_quietly,
            lists_of=partial(read_lists, layers),
        )


def parse(
    output: BinaryIO,
    console: BinaryIO | None = None,
    *,
    is_whole: bool = True,
    console_is_whole: bool = True,
    known: Sequence[KnownFailure] = (),
    known_quietly: Sequence[KnownFailure] = (),
    lists_of: Callable[[], SuiteLists] = SuiteLists,
    max_lines: int = MAX_LINES,
    max_named: int = MAX_NAMED,
) -> Subtests:
    """The results in streams of any content and length; see `read`.

    lists_of: reads the lists of OpenZFS's suite; it is called only where that has run. max_lines: how many
    result lines of each stream are read. max_named: how many tests are kept by name.
    """
    reading = _Reading(max_lines, max_named)
    # The console first: its lines are then ignored in the output.
    if console is not None:
        reading.take_console(console, is_whole=console_is_whole)
    reading.take_output(output, is_whole=is_whole)
    return reading.results(known, known_quietly, lists_of)


def load(folder: Path) -> list[Subtest]:
    """The list of tests in a cell's folder; empty if it is missing or cannot be read."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=list[Subtest])
    except (OSError, msgspec.MsgspecError):
        return []


class _Reading:
    """Feeds the readers of all formats with the lines of output and console, and joins their results."""

    def __init__(self, max_lines: int, max_named: int) -> None:
        self._max_lines = max_lines
        self._max_named = max_named
        # _own and _suites: the output of the command's programs. _printed: kernel log lines in that output.
        # _said: the console.
        self._own = TapReader(max_named)
        self._runner = RunnerReader(max_named)
        self._suites: list[SuiteReader] = [self._runner]
        self._printed = KernelTests(max_named)
        self._said = KernelTests(max_named)
        self._known = SeenLines()
        self._has_unread = False

    def take_console(self, console: BinaryIO, *, is_whole: bool) -> None:
        """Read a kernel's console."""
        lines = console_lines(console)
        for match, has_ended in islice(lines, self._max_lines):
            text = text_of(match["text"])
            # An incomplete line may be cut: "ok" may lack its directive, and a plan its last digits.
            if has_ended or text.lstrip().startswith("not ok"):
                self._known.learn(match)
                self._said.feed(text)
        is_whole = is_whole and next(lines, None) is None
        self._said.finish(is_whole=is_whole)
        self._has_unread |= self._said.tap.is_known and not is_whole

    def take_output(self, output: BinaryIO, *, is_whole: bool) -> None:
        """Read a command's output, after the console."""
        found = OutputLines(output)
        lines = iter(found)
        for match, has_ended in islice(lines, self._max_lines):
            if found.has_rare and len(self._suites) == 1:
                from quizmatrix.subtests import rare

                self._suites += rare.readers(self._max_named)
            own = match["own"]
            line = text_of(own if own is not None else match["text"])
            # The last line of a guest that died may be cut: a plan's last digits, a directive, a test's name.
            if not (has_ended or is_whole or line.lstrip().startswith("not ok")):
                continue
            if own is not None:
                self._own.feed(line)
                for suite in self._suites:
                    suite.feed(line)
            elif self._known.is_new(match):
                self._printed.feed(line)
        has_unread = next(lines, None) is not None
        is_whole = is_whole and not has_unread
        self._printed.finish(is_whole=is_whole)
        self._own.finish()
        for suite in self._suites:
            suite.finish()
        if not self._own.is_known:
            self._own = TapReader()
        if not is_whole:
            self._own.missing = 0
            self._own.is_known = bool(self._own.tests or self._own.unnamed)
            for suite in self._suites:
                suite.is_known = bool(suite.tests or suite.unnamed)
        readers: list[TapReader | SuiteReader] = [self._own, self._printed.tap, *self._suites]
        self._has_unread |= has_unread and any(reader.is_known for reader in readers)

    def results(
        self,
        known: Sequence[KnownFailure],
        known_quietly: Sequence[KnownFailure],
        lists_of: Callable[[], SuiteLists],
    ) -> Subtests:
        """The joined results; tests of the same name are one test. The arguments: see `parse`."""
        own, runner, kernels = self._own, self._runner, [self._printed.tap, self._said.tap]
        taps = [own, *(tap for tap in kernels if tap.is_known)]
        suites = [suite for suite in self._suites if suite.is_known]
        readers: list[TapReader | SuiteReader] = [*taps, *suites]
        unnamed: Counter[SubtestOutcome] = sum((reader.unnamed for reader in readers), Counter())
        of_runner, passed = apply_suite(runner, lists_of() if runner.tests else SuiteLists())
        of_suites = [of_runner if suite is runner else suite.tests for suite in suites]
        lists = [own.tests, *(tests.values() for tests in of_suites), *(tap.tests for tap in taps[1:])]
        skips = unexpected_skips(runner)
        joined = _joined_by_name(lists, unnamed, self._max_named)
        named, uses = apply_known(joined, known, skips, known_quietly)
        own_is_known = own.is_known or bool(suites)
        has_own = bool(own.tests or own.unnamed or any(suite.tests or suite.unnamed for suite in suites))
        return Subtests(
            is_known=own_is_known or len(taps) > 1,
            tests=list(named.values()),
            unnamed=dict(unnamed),
            missing=sum(tap.missing for tap in taps),
            bail_out=next((tap.bail_out for tap in taps if tap.bail_out is not None), None),
            kernel_has_some=self._said.tap.is_known,
            none_ran=own_is_known and not has_own,
            has_unread=self._has_unread,
            has_left_out=len(named) == self._max_named and bool(unnamed),
            known=[*uses, *passed],
            suite_end=SuiteEnd(
                unexpected_skips=sorted(name for name in skips if not named[name].known),
                is_unfinished=any(reader.is_unfinished for reader in readers),
            ),
            running=next((reader.running for reader in readers if reader.running), ""),
        )


def _joined_by_name(
    found: Iterable[Iterable[Subtest]], unnamed: Counter[SubtestOutcome], most: int
) -> dict[str, Subtest]:
    """The first `most` tests; of duplicates the worse outcome. The others are added to `unnamed`."""
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
        return 4
    if test.outcome is SubtestOutcome.FAILED_AS_EXPECTED:
        return 3
    # A test that was skipped in one place and ran in another counts as run.
    return 0 if test.outcome is SubtestOutcome.SKIPPED else 1 + test.failed_before
