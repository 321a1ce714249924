"""Reads TAP, versions 12 to 14 (testanything.org), and KTAP (kernel document dev-tools/ktap)."""

from __future__ import annotations

import re
from collections import Counter

import msgspec

from quizmatrix.core.text import clean_line
from quizmatrix.model.subtest import MAX_NAMED, Subtest, SubtestOutcome

_VERSION = re.compile(r"K?TAP version \d{1,9}")
_PLAN = re.compile(r"1\.\.(\d{1,9})(?:\s*#\s*(.*))?")
_TEST = re.compile(r"(not )?ok(?:\s+(\d{1,9})(?=\s|$))?(?:\s+-(?=\s|$))?(?:\s+(.*))?")
# KTAP separates a test's name and its diagnostic by ` # `. TAP 14 writes a hash in a name as `\#`.
_DIAGNOSTIC = re.compile(r"(?:^|\s)#(?:\s|(?=(?:skip|todo)))", re.IGNORECASE)
_DIRECTIVE = re.compile(r"(?:^|\s)#\s*(skip|todo\b|xfail\b|timeout\b)", re.IGNORECASE)
# kselftest prints the output of each program as comments of its own stream.
_COMMENTED = re.compile(r"(?:#[ \t]+)+(?=(?:not )?ok \d|1\.\.\d|K?TAP version \d)")
_BAIL_OUT = "Bail out!"
_SUBTEST = "# Subtest"
# The line that kselftest prints before each program.
_SELFTEST = "# selftests: "

# Levels of nesting; KUnit has three. Deeper lines count as diagnostics.
_MAX_LEVELS = 16

# The name for the tests of a stream that only says that it skips them.
_ALL_TESTS = "all tests"


class _Level(msgspec.Struct, kw_only=True):
    """The TAP stream at one level of indentation.

    indent: columns before its lines, comment signs included.
    hashes: the number of comment signs before its lines.
    is_doubtful: it was recognised only by a plan in a comment, which may be any two numbers.
    has_begun: a version or a plan has shown that it is TAP. has_version: it was a version.
    planned: the number of tests in its plan.
    seen: the number of its results so far.
    """

    indent: int
    hashes: int = 0
    is_doubtful: bool = False
    name: str = ""
    has_begun: bool = False
    has_version: bool = False
    planned: int | None = None
    plan_came_last: bool = False
    is_skipped: bool = False
    seen: int = 0
    tests: list[Subtest] = []


class TapReader:
    """Reads TAP between other lines. Output without a version or a plan is not TAP.

    For a test with subtests, the subtests count; the test itself counts only if it failed and none of them
    did. Subtests are indented, or prefixed with `# ` by kselftest, to any depth.
    """

    def __init__(self, max_named: int = MAX_NAMED) -> None:
        """max_named: how many tests are kept by name; further ones are only counted.

        tests, unnamed, missing, bail_out, running: see summary.Subtests; they are complete after `finish`.
        is_unfinished: whether a stream with tests came to its end without a plan.
        """
        self.is_known = False
        self.tests: list[Subtest] = []
        self.unnamed: Counter[SubtestOutcome] = Counter()
        self.missing = 0
        self.bail_out: str | None = None
        self.running = ""
        self.is_unfinished = False
        self._selftest = ""
        self._levels = [_Level(indent=0)]
        # The name from a `# Subtest` comment, for a stream that has not begun yet.
        self._announced: str | None = None
        self._kept = 0
        self._max_named = max_named

    def feed(self, line: str) -> None:
        """Take the next line."""
        text = line.strip()
        indent = len(line.rstrip()) - len(text)
        hashes = 0
        if comment := _COMMENTED.match(text):
            hashes = comment[0].count("#")
            indent += comment.end()
            text = text[comment.end() :]
            if not self._may_hold(indent, hashes):
                return
        if match := _TEST.fullmatch(text):
            self._take_test(indent, hashes, match)
        elif match := _PLAN.fullmatch(text):
            self._take_plan(indent, hashes, int(match[1]), match[2] or "")
        elif _VERSION.fullmatch(text):
            self.is_known = True
            self._open(indent, hashes).has_version = True
        elif text.startswith(_SUBTEST):
            self._announce(indent, text.removeprefix(_SUBTEST).removeprefix(":").strip())
        elif line.startswith(_SELFTEST) and self.is_known:
            self._selftest = clean_line(text.removeprefix("# "))
        elif text.startswith(_BAIL_OUT) and self.is_known:
            self.bail_out = clean_line(text.removeprefix(_BAIL_OUT).strip())

    def finish(self) -> None:
        """The output has ended."""
        self.running = self._last_begun()
        self._close(0)
        taken: set[str] = set()
        times: Counter[str] = Counter()
        for place, test in enumerate(self.tests):
            name = test.name
            while name in taken:
                times[test.name] += 1
                name = f"{test.name} ({times[test.name] + 1})"
            taken.add(name)
            if name != test.name:
                self.tests[place] = msgspec.structs.replace(test, name=name)

    def _last_begun(self) -> str:
        """The test that has begun and has no result: its name, or `suite: test 2 of 3`, or empty."""
        levels = [one for one in self._levels if one.planned is not None and one.seen < one.planned]
        if self.bail_out is not None or not levels:
            return ""
        if self._selftest:
            return self._selftest
        suite = "/".join(level.name for level in self._levels if level.name)
        place = f"test {levels[-1].seen + 1} of {levels[-1].planned}"
        return f"{suite}: {place}" if suite else place

    def _announce(self, indent: int, name: str) -> None:
        top = self._levels[-1]
        if indent > top.indent:
            self._open(indent).name = clean_line(name)
        elif indent == top.indent > 0 and top.planned is None and not top.seen:
            top.name = clean_line(name)
        else:
            self._announced = name

    def _may_hold(self, indent: int, hashes: int) -> bool:
        """Whether a comment can be a line of a stream inside those that have begun."""
        begun = [level for level in self._levels if level.has_begun]
        return any(level.hashes < hashes for level in begun) and all(
            level.hashes >= hashes for level in self._levels if level.indent >= indent
        )

    def _take_plan(self, indent: int, hashes: int, planned: int, comment: str) -> None:
        if indent == 0 and (self._levels[0].seen or comment[:4].lower() == "skip"):
            self.is_known = True
        level = self._level_at(indent, hashes)
        if level is None or level.planned is not None:
            if level is None and indent < self._levels[-1].indent:
                return
            level = self._open(indent, hashes)
            level.is_doubtful = hashes > 0
        level.has_begun = True
        level.planned = planned
        level.plan_came_last = level.seen > 0
        level.is_skipped = planned == 0 and comment[:4].lower() == "skip"

    def _take_test(self, indent: int, hashes: int, match: re.Match[str]) -> None:
        level = self._level_at(indent, hashes)
        if level is None and not hashes and indent > self._levels[-1].indent and self._announced is not None:
            level = self._open(indent)
        if level is None:
            return
        if level.plan_came_last and level.seen >= (level.planned or 0):
            level = self._open(indent, hashes)
            level.has_begun = False
        level.seen += 1
        self._selftest = self._selftest if indent else ""
        name, outcome, is_known_failure = _result(match, level.seen)
        # A skipped test need not run the subtests that it announced.
        _, inner = self._pop_below(indent, is_excused=outcome is SubtestOutcome.SKIPPED)
        # KUnit's results in debugfs have no version or plan: their subtests show that they are TAP.
        level.has_begun |= bool(inner)
        if indent == 0 and (level.planned is not None or inner):
            self.is_known = True
        if is_known_failure:
            inner = [_excused(test) for test in inner]
        level.tests += [_inside(name, test) for test in inner]
        if not inner or (outcome.is_bad and not any(test.outcome.is_bad for test in inner)):
            self._keep(level, name, outcome)

    def _keep(self, level: _Level, name: str, outcome: SubtestOutcome) -> None:
        self._kept += 1
        if self._kept > self._max_named:
            self.unnamed[outcome] += 1
        else:
            level.tests.append(Subtest(name=name, outcome=outcome))

    def _level_at(self, indent: int, hashes: int) -> _Level | None:
        return next(
            (level for level in self._levels if (level.indent, level.hashes) == (indent, hashes)), None
        )

    def _open(self, indent: int, hashes: int = 0) -> _Level:
        """Begin a new stream at `indent`; this ends a stream that is there already."""
        self._close(indent)
        name, self._announced = clean_line(self._announced or ""), None
        level = _Level(indent=indent, hashes=hashes, name=name, has_begun=True)
        if len(self._levels) < _MAX_LEVELS:
            self._levels.append(level)
        return level

    def _close(self, indent: int) -> None:
        """End the streams at `indent` and deeper whose enclosing test has no result."""
        name, left = self._pop_below(indent - 1)
        left = [_inside(name, test) for test in left] if name else left
        (self._levels[-1].tests if self._levels else self.tests).extend(left)

    def _pop_below(self, indent: int, *, is_excused: bool = False) -> tuple[str, list[Subtest]]:
        """End the streams deeper than `indent`; return the name of the outermost one, and all their tests.

        is_excused: tests of theirs that did not run do not count as missing.
        """
        found: list[Subtest] = []
        name = ""
        while self._levels and self._levels[-1].indent > indent:
            if name:
                found = [_inside(name, test) for test in found]
            level = self._levels.pop()
            name = level.name
            if level.planned is not None and not is_excused and (level.seen or not level.is_doubtful):
                self.missing += max(0, level.planned - level.seen)
            self.is_unfinished |= level.has_version and level.planned is None and level.seen > 0
            if level.indent == 0 and level.is_skipped:
                self._keep(level, _ALL_TESTS, SubtestOutcome.SKIPPED)
            # Lines with `ok` but without a plan are not TAP.
            found = [*level.tests, *found] if level.has_begun else found
        return name, found


def _inside(outer: str, test: Subtest) -> Subtest:
    return msgspec.structs.replace(test, name=clean_line(f"{outer}/{test.name}"))


def _excused(test: Subtest) -> Subtest:
    return msgspec.structs.replace(test, outcome=SubtestOutcome.SKIPPED) if test.outcome.is_bad else test


def _result(match: re.Match[str], place: int) -> tuple[str, SubtestOutcome, bool]:
    """A test's name and outcome, and whether its failure is expected (todo, xfail)."""
    failed, number, text = match.groups()
    diagnostic = _DIAGNOSTIC.search(text or "")
    name = (text or "")[: diagnostic.start()] if diagnostic else text or ""
    name = clean_line(name.replace("\\#", "#").strip()) or f"test {number or place}"
    directive = _DIRECTIVE.search(text or "")
    word = directive[1].lower() if directive else ""
    is_known_failure = word in ("todo", "xfail")
    if word == "skip" or (failed and is_known_failure):
        return name, SubtestOutcome.SKIPPED, is_known_failure
    if failed:
        return name, SubtestOutcome.KILLED if word == "timeout" else SubtestOutcome.FAILED, False
    return name, SubtestOutcome.PASSED, is_known_failure
