"""Reads test results from a kernel's log, on the console or as printed by dmesg(1).

Modules and KUnit print KTAP. printk puts time stamps, levels and callers before each line.
"""

from __future__ import annotations

import re
from collections import Counter

from quizmatrix.subtests.tap import TapReader

# The prefix of a line: `<6>` (dmesg -r), `kern  :info  : ` (-x), the seconds since the boot, or a date, a
# difference or ISO 8601 (-T, -d, -e, --time-format), and the caller (PRINTK_CALLER).
_LEVEL = rb"<\d{1,3}>"
_TIME = (
    rb"(?:\[ *(?P<seconds>\d{1,12}\.\d{6})\]|\[(?=[^\]\n]{0,40}\d)[ \w:.,+<>-]{3,40}\]"
    rb"|\d{4}-\d\d-\d\dT[\d:,.+-]{8,24}(?= ))"
)
STAMP = (
    rb"(?P<stamp>(?:"
    + _LEVEL
    + rb")?(?:[a-z]\w{0,9} *:[a-z]{1,8} *: ?)?"
    + _TIME
    + rb"(?: ?\[ *[TC]\d{1,10}\])?"
    rb"|" + _LEVEL + rb") ?"
)
# The text of a line that may be a test result: KTAP numbers its results. A module may put its name before
# each line. The text ends where another such line begins, since a line may lack its line feed.
_RESULT = rb"(?:(?:not )?ok \d|1\.\.\d|K?TAP version \d)"
_ANOTHER = rb"\[ *\d{1,12}\.\d{6}\](?: ?\[ *[TC]\d{1,10}\])?[ \t]*" + _RESULT
TEXT = (
    rb"(?P<text>[ \t]*(?:[\w.-]{1,64}: [ \t]*)?(?:(?:#[ \t]+){0,16}" + _RESULT + rb"|Bail out!|# Subtest)"
    rb"(?:(?!" + _ANOTHER + rb")[^\n])*)"
)
# Every TEXT contains at least one of these.
RESULT_WORDS = (b"ok ", b"1..", b"TAP version", b"Bail out!", b"# Subtest")
# A line of a console. Output without a line feed (printed by init, for example) may come before a stamp.
CONSOLE_LINE = re.compile(rb"(?:\n|(?=\[ *\d{1,12}\.\d{6}\]))(?:" + STAMP + rb")?" + TEXT)

_NAMED = re.compile(r"([\w.-]{1,64}: )(.*)")
_VERSION = re.compile(r"\s*K?TAP version \d{1,9}\s*")
# The largest number of modules that put their name before their results.
_MAX_NAMES = 64

_ONLY_A_LEVEL = re.compile(_LEVEL)
# The largest number of lines that are remembered.
_MAX_REMEMBERED = 200_000


class KernelTests:
    """Reads test results in the lines of a kernel log, which are given without their prefixes."""

    def __init__(self, max_named: int) -> None:
        """max_named: how many tests are kept by name. `tap` then has the results."""
        self.tap = TapReader(max_named)
        self._names: set[str] = set()

    def feed(self, text: str) -> None:
        """Take the next line."""
        if match := _NAMED.match(text):
            name, rest = match.groups()
            if name not in self._names:
                if not _VERSION.fullmatch(rest) or len(self._names) == _MAX_NAMES:
                    return
                self._names.add(name)
            text = rest
        self.tap.feed(text)

    def finish(self, *, is_whole: bool) -> None:
        """There are no more lines. Only a log with tests counts as known: a kernel may announce none.

        is_whole: whether the log is complete, so that tests which were announced but are missing did not run.
        """
        self.tap.finish()
        said = self.tap
        if not is_whole:
            said.missing = 0
        self.tap.is_known = bool(said.tests or said.unnamed or said.missing or said.bail_out is not None)


class SeenLines:
    """Recognises lines that dmesg(1) prints again: they were on the console, or in an earlier dmesg.

    Lines are equal if time and text are equal; equal lines are counted, since a kernel's clock may be coarse.
    If there are too many lines to remember, duplicate results are still recognised by the tests' names.
    """

    def __init__(self) -> None:
        self._known: dict[int, int] = {}
        # The lines of the present dmesg(1) so far.
        self._printed: Counter[int] = Counter()
        self._first: int | None = None
        self._latest = 0.0

    def learn(self, match: re.Match[bytes]) -> None:
        """Remember a line of the console."""
        if (line := _identity(match)) is not None and len(self._known) < _MAX_REMEMBERED:
            self._known[line] = self._known.get(line, 0) + 1

    def is_new(self, match: re.Match[bytes]) -> bool:
        """Whether a line of the command's output is new: not on the console and not printed before."""
        line = _identity(match)
        if line is None or (line not in self._known and len(self._known) >= _MAX_REMEMBERED):
            return True
        seconds = float(match["seconds"] or self._latest)
        if seconds < self._latest or line == self._first:
            self._printed.clear()
        self._latest = seconds
        self._first = line if not self._printed else self._first
        self._printed[line] += 1
        if self._printed[line] <= self._known.get(line, 0):
            return False
        self._known[line] = self._printed[line]
        return True


def _identity(match: re.Match[bytes]) -> int | None:
    """A hash of a line's time and text (a match of STAMP and TEXT); None if it has no time."""
    time = match["seconds"] or match["stamp"]
    if not time or _ONLY_A_LEVEL.fullmatch(time):
        return None
    return hash((time, match["text"].rstrip()))
