"""Compares two runs: their cells' outcomes, the tests in their output, and their kernel findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum

import msgspec

from quizmatrix.core.text import clean_line
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.report.colour import paint
from quizmatrix.report.grid import verdict_words
from quizmatrix.runs.history.kept import RecordedRun, findings_of

# The largest number of lines of one kind in a section.
MOST_LINES = 40
# The largest number of cells named in a line.
_MOST_CELLS = 6

# Outcomes that say nothing about the command.
UNTESTED = frozenset({Outcome.UNPREPARED, Outcome.CANCELLED, Outcome.SKIPPED})
# Outcomes of commands that ran to their end, so that a test that is not in their output did not run.
_ENDED = frozenset({Outcome.PASSED, Outcome.FAILED, Outcome.SPLAT})


class Change(StrEnum):
    """How a cell, a test or a finding changed. flaky: the outcome differs, though all inputs are the same."""

    REGRESSED = "regressed"
    FIXED = "fixed"
    NEW = "new"
    STILL_FAILING = "still failing"
    FLAKY = "flaky"
    NOT_TESTED = "not tested"
    GONE = "gone"


_COLOURS = {
    Change.REGRESSED: Outcome.FAILED,
    Change.FIXED: Outcome.PASSED,
    Change.STILL_FAILING: Outcome.FAILED,
    Change.FLAKY: Outcome.TIMED_OUT,
}


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One change, in one or more cells.

    name: the name of a test, or the fingerprint of a finding; empty where the cells themselves changed.
    title: the finding's title. before, after: the outcomes in both runs; empty where there is none.
    """

    change: Change
    name: str = ""
    title: str = ""
    cells: list[str]
    before: str = ""
    after: str = ""


class Comparison(msgspec.Struct, frozen=True, kw_only=True, rename={"findings": "messages"}):
    """The changes from the run `before` to the run `after` (ids). In JSON `findings` is called `messages`."""

    before: str
    after: str
    cells: list[Difference]
    tests: list[Difference]
    findings: list[Difference]

    @property
    def has_regressed(self) -> bool:
        """Whether any cell, test or finding has regressed."""
        return any(line.change is Change.REGRESSED for line in self.lines)

    @property
    def lines(self) -> list[Difference]:
        """All changes."""
        return [*self.cells, *self.tests, *self.findings]

    def where(self, holds: Callable[[Difference], bool]) -> Comparison:
        """Only the changes for which `holds` is true."""
        kept = {name: [line for line in getattr(self, name) if holds(line)] for name in _LISTS}
        return msgspec.structs.replace(self, **kept)


_LISTS = ("cells", "tests", "findings")


def compare(before: RecordedRun, after: RecordedRun) -> Comparison:
    """What changed from one run to another."""
    old = {result.cell: result for result in before.results.cells}
    new = {result.cell: result for result in after.results.cells}
    lines = [_cell(old.get(cell), new.get(cell)) for cell in dict.fromkeys([*new, *old])]
    return Comparison(
        before=before.results.run,
        after=after.results.run,
        cells=[line for line in lines if line is not None],
        tests=_merge(_tests(before, after)),
        findings=_merge(_findings(old, new)),
    )


def _cell(old: CellResult | None, new: CellResult | None) -> Difference | None:
    def line(change: Change, *, more: str = "") -> Difference:
        cell = new or old
        return Difference(
            change=change,
            cells=[cell.cell] if cell else [],
            before=_plain(old) if old else "",
            after=(_plain(new) if new else "") + (f" ({more})" if more else ""),
        )

    was_tested = old is not None and old.outcome not in UNTESTED
    if new is None:
        return line(Change.GONE) if was_tested else None
    if new.outcome in UNTESTED:
        return line(Change.NOT_TESTED) if was_tested else None
    if old is None or not was_tested:
        return line(Change.NEW)
    if new.flaky and not new.earlier:
        return line(Change.FLAKY, more=new.flaky)
    if _passed(old) is not _passed(new) and _have_same_inputs([old], [new]):
        return line(Change.FLAKY)
    if _is_bad(new):
        return line(Change.STILL_FAILING if _is_bad(old) else Change.REGRESSED)
    return line(Change.FIXED) if _passed(new) and not _passed(old) else None


def _plain(result: CellResult) -> str:
    return verdict_words(msgspec.structs.replace(result, flaky="", earlier=""))


def _passed(result: CellResult) -> bool:
    return result.outcome is Outcome.PASSED


def _is_bad(result: CellResult) -> bool:
    """Whether it failed, and its matrix does not expect that."""
    return not _passed(result) and not result.is_as_expected


def _have_same_inputs(old: list[CellResult], new: list[CellResult]) -> bool:
    inputs = [result.inputs for result in old]
    return all(inputs) and inputs == [result.inputs for result in new]


def _by_column(kept: RecordedRun) -> dict[str, list[CellResult]]:
    """The results by cell; the slices of a cell together, since it does not matter which slice ran a test."""
    found: dict[str, list[CellResult]] = {}
    for result in kept.results.cells:
        found.setdefault(result.unsharded, []).append(result)
    return found


def _tests(before: RecordedRun, after: RecordedRun) -> Iterator[Difference]:
    old, new = _by_column(before), _by_column(after)
    for cell in (cell for cell in new if cell in old):
        sides = [*old[cell], *new[cell]]
        if any(result.outcome in UNTESTED for result in sides) or not any(r.subtests for r in sides):
            continue
        # If a run's command was cut short, or only failed tests are recorded, a test that is missing there
        # may have run all the same.
        old_ended = before.is_complete and all(result.outcome in _ENDED for result in old[cell])
        new_ended = after.is_complete and all(result.outcome in _ENDED for result in new[cell])
        had = {name: test for result in old[cell] for name, test in before.tests.get(result.cell, {}).items()}
        has = {name: test for result in new[cell] for name, test in after.tests.get(result.cell, {}).items()}
        same = _have_same_inputs(old[cell], new[cell])
        old_known = all(map(before.knows_failures, old[cell]))
        new_known = all(map(after.knows_failures, new[cell]))
        for name in dict.fromkeys([*has, *had]):
            was, now = had.get(name), has.get(name)
            change = _test(was, now, same=same)
            absent = not old_ended if was is None else now is None and not new_ended
            if absent:
                change = _where_one_is_unknown(
                    was,
                    now,
                    had_no_other=not before.is_complete and old_known,
                    has_no_other=not after.is_complete and new_known,
                )
            if change is not None:
                words = [str(test.outcome) if test else "" for test in (was, now)]
                yield Difference(change=change, name=name, cells=[cell], before=words[0], after=words[1])


def _test(was: Subtest | None, now: Subtest | None, *, same: bool) -> Change | None:
    ran_before = was is not None and was.outcome is not SubtestOutcome.SKIPPED
    runs_now = now is not None and now.outcome is not SubtestOutcome.SKIPPED
    if now is None or not runs_now:
        return Change.GONE if ran_before else None
    if now.failed_before:
        return Change.FLAKY
    if was is None or not ran_before:
        return Change.NEW
    if was.outcome.is_bad is now.outcome.is_bad or now.outcome is SubtestOutcome.FAILED_AS_EXPECTED:
        return None
    if same:
        return Change.FLAKY
    return Change.REGRESSED if now.outcome.is_bad else Change.FIXED


def _where_one_is_unknown(
    was: Subtest | None, now: Subtest | None, *, had_no_other: bool, has_no_other: bool
) -> Change | None:
    """The change of a test that one of the runs does not list.

    Of a run whose directory is gone only the failed tests are known. If they are all known, a test that is
    not listed did not fail. had_no_other, has_no_other: whether they are, for the earlier run and the later
    one.
    """
    if was is None and now is not None and now.outcome.is_bad and had_no_other:
        return Change.REGRESSED
    if now is None and was is not None and was.outcome.is_bad and has_no_other:
        return Change.FIXED
    return None


def _findings(old: dict[str, CellResult], new: dict[str, CellResult]) -> Iterator[Difference]:
    for cell in (cell for cell in new if cell in old):
        if old[cell].outcome in UNTESTED or new[cell].outcome in UNTESTED:
            continue
        had = {finding.fingerprint: finding for finding in findings_of(old[cell])}
        has = {finding.fingerprint: finding for finding in findings_of(new[cell])}
        same = _have_same_inputs([old[cell]], [new[cell]])
        for fingerprint, finding in (had | has).items():
            if fingerprint in had and fingerprint in has:
                change = Change.STILL_FAILING
            elif same:
                change = Change.FLAKY
            else:
                change = Change.REGRESSED if fingerprint in has else Change.FIXED
            yield Difference(change=change, name=fingerprint, title=finding.title, cells=[cell])


def _merge(lines: Iterable[Difference]) -> list[Difference]:
    """The changes; equal changes in several cells are joined into one."""
    found: dict[tuple[str, ...], Difference] = {}
    for line in lines:
        # The title is not compared: it may name a CPU or a process, though the finding is the same.
        key = (line.change, line.name, line.before, line.after)
        first = found.get(key)
        found[key] = msgspec.structs.replace(first, cells=[*first.cells, *line.cells]) if first else line
    return list(found.values())


def render(found: Comparison, *, colour: bool = False) -> str:
    """The comparison as text, with a section for each kind of change."""
    sections = []
    for change in Change:
        lines = _aligned(_of(change, found.cells), lambda line: line.cells[0])
        lines += _aligned(_of(change, found.tests), lambda line: clean_line(line.name))
        lines += _aligned(_of(change, found.findings), lambda line: f"{clean_line(line.title)} ({line.name})")
        if lines:
            head = paint(str(change), _COLOURS[change], colour) if change in _COLOURS else str(change)
            sections.append("\n".join([head, *lines]))
    return "\n\n".join(sections) or "Nothing has changed."


def _of(change: Change, lines: list[Difference]) -> list[Difference]:
    """The changes of one kind; what fails now comes first."""
    chosen = [line for line in lines if line.change is change]
    return sorted(chosen, key=lambda line: line.after in ("passed", "skipped", ""))


def _aligned(lines: list[Difference], name: Callable[[Difference], str]) -> list[str]:
    shown = lines[:MOST_LINES]
    width = max((len(name(line)) for line in shown), default=0)
    told = [f"  {name(line):<{min(width, 60)}}  {_words(line)}".rstrip() for line in shown]
    if len(lines) > len(shown):
        told.append(f"  and {len(lines) - len(shown)} more (--json - has them all)")
    return told


def _words(line: Difference) -> str:
    same = line.before == line.after
    ends = [line.after] if same else [word for word in (line.before, line.after) if word]
    where = ""
    if line.name:
        more = len(line.cells) - _MOST_CELLS
        where = f"on {', '.join(line.cells[:_MOST_CELLS])}" + (f" and {more} more" if more > 0 else "")
    return ": ".join(part for part in (where, " -> ".join(ends)) if part)
