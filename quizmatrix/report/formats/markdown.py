"""Writes Markdown for a pull request or a job summary: grid, failing cells (folded), differing tests.

Nothing that a guest wrote is read as markup: it stands in `code` elements, with every special character as a
character reference, or in fences longer than any run of backticks in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from quizmatrix.core.text import clean_detail, tail
from quizmatrix.core.units import format_seconds
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.subtest import SubtestOutcome
from quizmatrix.report import builds, findings, grid, testtable
from quizmatrix.report.common import common_sentence
from quizmatrix.report.formats.source import ReportSource
from quizmatrix.run.reproduce import command_of

# GitHub's limit for one step's summary (its documentation, "Workflow commands", "Step isolation and limits").
SUMMARY_BYTES = 1 << 20
# Bytes kept free for the sentence that says what was left out.
_RESERVE = 500
# How many lines of each stream of a failing cell are shown.
_LINES = 40

_SIGNS = {
    Outcome.PASSED: "✅",
    Outcome.FAILED: "❌",
    Outcome.TIMED_OUT: "⌛",
    Outcome.PANICKED: "💥",
    Outcome.SPLAT: "⚠️",
    Outcome.BOOT_FAILED: "🚫",
    Outcome.LOST: "❓",
    Outcome.UNPREPARED: "🚧",
}
_TEST_SIGNS = {SubtestOutcome.PASSED: "✅", SubtestOutcome.FAILED: "❌", SubtestOutcome.KILLED: "⌛"}


def render(source: ReportSource, room: int = SUMMARY_BYTES) -> Iterator[bytes]:
    """The report in at most `room` bytes. Sections that do not fit are left out; a sentence says how many."""
    room -= _RESERVE
    left_out = 0
    for section in _sections(source):
        data = section.encode(errors="replace") + b"\n\n"
        if len(data) > room:
            left_out += 1
            continue
        room -= len(data)
        yield data
    if left_out:
        yield (
            f"*{left_out} more section{'s' if left_out > 1 else ''} of this report did not fit in here; "
            f"`quizmatrix runs show {source.results.run} --html report.html` has all.*\n"
        ).encode(errors="replace")


def _sections(source: ReportSource) -> Iterator[str]:
    bad = [result for result in source.cells if not result.is_as_expected]
    sign = "❌" if bad else ("❔" if source.unended else "✅")
    yield f"## {sign} {grid.summary(source.cells, source.results.seconds)}"
    if command := grid.command_words(source.results):
        yield f"Command: {_code(command)}"
    if source.unended:
        yield _plain(source.unended_sentence)
    for table in grid.grids(source.cells):
        yield _grid(table)
    if notes := grid.notes(source.cells):
        yield "\n\n".join(map(_plain, notes.split("\n")))
    if lines := builds.lines(source.cells):
        yield "\n\n".join(map(_plain, lines))
    if sentence := common_sentence(source.cells):
        yield f"**{_plain(sentence)}**"
    tests = _tests(source)
    for group in grid.failures(source.cells, source.folder):
        yield _failure(source, group)
    for other in findings.others(source.cells, source.folder):
        yield f"<details><summary>{_plain(other.head)}</summary>\n\n{_fence(other.lines)}\n\n</details>"
    if tests:
        yield tests


def _grid(table: grid.Grid) -> str:
    return _table(
        [table.corner, *table.columns],
        [[_plain(label), *(_square(result) for result in row)] for label, row in table.rows],
    )


def _square(result: CellResult | None) -> str:
    if result is None:
        return ""
    time = result.timings.command
    words = f"{_sign(result)} {_plain(grid.square_words(result))}".strip()
    return words + (f" <sub>{format_seconds(time)}</sub>" if time is not None else "")


def _sign(result: CellResult) -> str:
    if result.is_as_expected and result.outcome is not Outcome.PASSED:
        return "☑️"
    return (
        "❗"
        if result.outcome is Outcome.PASSED and not result.is_as_expected
        else _SIGNS.get(result.outcome, "")
    )


def _failure(source: ReportSource, group: list[CellResult]) -> str:
    """One <details> element for the cells with the same failure."""
    first = group[0]
    words = grid.verdict_words(first)
    folder = source.folder / first.folder
    head = f"{', '.join(_plain(result.cell) for result in group)}: <b>{_plain(words)}</b>"
    detail = clean_detail(first.detail)
    parts = [f"<details><summary>{head}{f': {_code(detail)}' if detail else ''}</summary>"]
    if first.outcome in grid.BY_CONSOLE:
        parts.append(_fence(grid.evidence_lines(first, source.folder)))
    for stream in ("stdout", "stderr"):
        if lines := tail(folder / stream, _LINES):
            parts += [f"The end of its {stream}:", _fence(lines)]
    if first.release is not None:
        again = command_of(first, folder)
        parts.append(f"Logs: {_code(grid.places(group, source.folder))}")
        for place in grid.kept_disks(group, source.folder):
            parts.append(f"Disks it was given: {_code(place)}")
        parts += ["Again:", _fence(again.split("\n"))] if again else []
    return "\n\n".join([*parts, "</details>"])


def _tests(source: ReportSource) -> str:
    table = testtable.collect(source.cells, source.folder)
    if not table.rows and not table.unread:
        return ""
    names = list(table.rows)[: testtable.MOST_ROWS]
    rows = []
    for name in names:
        row = table.rows[name]
        cells = (row.get(index) for index in range(len(table.cells)))
        rows.append(
            [
                _code(name),
                *(
                    f"{_TEST_SIGNS.get(test.outcome, '')} {testtable.outcome_words(test)}".strip()
                    if test
                    else ""
                    for test in cells
                ),
            ]
        )
    parts = [
        "### Tests that failed or differ",
        _table(["test", *(cell.unsharded for cell in table.cells)], rows),
    ]
    if len(names) < len(table.rows):
        parts.append(f"and {len(table.rows) - len(names)} more")
    if sentences := testtable.sentences(table):
        parts.append("\n".join(f"- {_plain(line)}" for line in sentences.split("\n")))
    return "\n\n".join(parts)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [[_plain(word) for word in head], ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# Characters that Markdown or HTML interprets inside a line. Underscores only at the edge of a word, colons
# only before `//`, which would make a link.
_SPECIAL = re.compile(r"[#$&*<>@\[\\\]`|~]|(?<!\w)_|_(?!\w)|:(?=//)")


def _plain(text: str) -> str:
    """Escape text: every character that could be markup becomes a character reference."""
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", clean_detail(text))


def _code(text: str) -> str:
    """Text as a `code` element. Not in backticks: the text could hold backticks, or a table's `|`."""
    return f"<code>{_plain(text)}</code>"


def _fence(lines: list[str]) -> str:
    """A fenced block of these lines. The fence is longer than any run of backticks in them."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}text", *lines, fence])
