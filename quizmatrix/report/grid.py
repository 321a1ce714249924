"""Formats a run's results as text (grid, failing cells, common sentence), and computes its exit status."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from quizmatrix.console.watch import first_finding
from quizmatrix.core.text import clean_detail, clean_line, clean_lines, first_of, tail
from quizmatrix.core.units import format_seconds
from quizmatrix.core.version import leading_version
from quizmatrix.model.outcome import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NO_VERDICT,
    EXIT_OK,
    EXIT_TIMED_OUT,
    Outcome,
)
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.model.subtest import SubtestOutcome, counted
from quizmatrix.report.colour import paint

_TAIL_LINES = 10
# How many bytes of a console are searched for the first finding.
_CONSOLE_BYTES = 8 << 20

# The mark of an earlier run's result in the grid.
EARLIER = "*"

# The end of the output of the test that was running, in a cell's folder (subtests/running.py).
RUNNING = "running.log"

# Outcomes that the console explains, not the command's output.
BY_CONSOLE = frozenset({Outcome.PANICKED, Outcome.SPLAT, Outcome.BOOT_FAILED})


def exit_status(results: list[CellResult], *, interrupted: bool = False) -> int:
    """The exit status of a run, as docs/run.md says."""
    if interrupted:
        return EXIT_INTERRUPTED
    unexpected = [result for result in results if not result.is_as_expected]
    if not unexpected:
        nothing_ran = results and all(result.outcome is Outcome.SKIPPED for result in results)
        return EXIT_NO_VERDICT if nothing_ran else EXIT_OK
    ran = [result for result in results if result.outcome not in (Outcome.UNPREPARED, Outcome.SKIPPED)]
    if len(ran) == 1 and ran[0] in unexpected:
        return _exit_status_of_one(ran[0])
    return EXIT_FAILED if any(result.outcome.is_verdict for result in unexpected) else EXIT_NO_VERDICT


def _exit_status_of_one(result: CellResult) -> int:
    if not result.outcome.is_verdict:
        return EXIT_NO_VERDICT
    if result.outcome is Outcome.TIMED_OUT:
        return EXIT_TIMED_OUT
    # For an unexpected pass, or a guest that was switched off, there is no exit status of the command.
    return (result.exit_code or EXIT_FAILED) if result.outcome is Outcome.FAILED else EXIT_FAILED


def verdict_words(result: CellResult) -> str:
    """`passed`, `failed (3)`, `passed (flaky)`: the outcome with exit code, flakiness and expectation."""
    code = f" ({result.exit_code})" if result.outcome is Outcome.FAILED and result.exit_code else ""
    plain = (Outcome.PASSED, Outcome.SKIPPED)
    known = ", expected" if result.is_as_expected and result.outcome not in plain else ""
    news = f", not {result.expected}" if _is_unexpected_pass(result) else ""
    # A flaky pass has to differ from a reliable one.
    flaky = "" if not result.flaky else " (flaky)" if result.outcome is Outcome.PASSED else ", flaky"
    return f"{result.outcome}{code}{flaky}{known}{news}"


def square_words(result: CellResult) -> str:
    """The outcome as in a square of the grid: with a mark, if it is from an earlier run."""
    return verdict_words(result) + (EARLIER if result.earlier else "")


def _is_unexpected_pass(result: CellResult) -> bool:
    return result.outcome is Outcome.PASSED and not result.is_as_expected


def command_words(results: RunResults, result: CellResult | None = None) -> str:
    """The command of a run, on one line; with `result`, the command of that cell."""
    return clean_line(results.command_words(result.group if result else None))


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """A table of results. corner: heading of the rows. rows: each has a label and one result per column."""

    corner: str
    columns: list[str]
    rows: list[tuple[str, list[CellResult | None]]]


def grids(results: list[CellResult]) -> list[Grid]:
    """The results as tables with a row per kernel and a column per architecture.

    Results that have labels are in tables of their own, with a row per writer and a column per reader.
    """
    tables: dict[str, dict[RowKey, dict[str, CellResult]]] = {}
    for result in results:
        corner, row, column = _place(result)
        tables.setdefault(corner, {}).setdefault(row, {})[column] = result
    found = []
    for corner, rows in tables.items():
        columns = list(dict.fromkeys(_place(result)[2] for result in results if _place(result)[0] == corner))
        labelled = [(_label(row), [row.get(column) for column in columns]) for row in rows.values()]
        found.append(Grid(corner=corner, columns=columns, rows=labelled))
    return found


# What all results in one row of a table have in common.
RowKey = tuple[str | None, ...]


def _place(result: CellResult) -> tuple[str, RowKey, str]:
    """The table of a result, its row there, and the column."""
    if result.labels is None:
        return "kernel", (result.kernel, result.variant, result.shard), result.arch
    words = result.labels.words
    return words.rows, (result.labels.writer,), words.column


def grid(results: list[CellResult], *, colour: bool = False) -> str:
    """The tables as text: outcome, exit code and the command's time in each square."""
    from tabulate import tabulate

    return "\n\n".join(
        tabulate(
            [
                [label, *(_square(result, colour) if result else "-" for result in squares)]
                for label, squares in one.rows
            ],
            headers=[one.corner, *one.columns],
            tablefmt="simple",
            disable_numparse=True,
        )
        for one in grids(results)
    )


def _label(row: dict[str, CellResult]) -> str:
    """The writer of a row, or its kernel and variant, with the version if the name does not contain it."""
    one = next(iter(row.values()))
    if one.labels is not None:
        return one.labels.writer
    label = one.kernel + (f"+{one.variant}" if one.variant else "")
    if leading_version(one.kernel.rpartition(":")[2]) is None:
        found = (leading_version(result.release) for result in row.values() if result.release)
        versions = dict.fromkeys(version.text for version in found if version is not None)
        label += f" ({', '.join(versions)})" if versions else ""
    return label + (f"@{one.shard}" if one.shard else "")


def _square(result: CellResult, colour: bool) -> str:
    time = result.timings.command
    words = paint(square_words(result), result.outcome, colour)
    return words + (f"  {format_seconds(time)}" if time is not None else "")


def notes(results: list[CellResult]) -> str:
    """Lines that say why cells are flaky or were skipped, what of failing tests is known, and which results
    are from an earlier run.
    """
    flaky: dict[str, list[str]] = {}
    for result in results:
        if result.flaky and not result.earlier:
            flaky.setdefault(result.flaky, []).append(result.cell)
    lines = [f"Flaky: {', '.join(cells)}: {why}" for why, cells in flaky.items()]
    skipped: dict[str, list[str]] = {}
    for result in results:
        if result.outcome is Outcome.SKIPPED and result.is_as_expected:
            skipped.setdefault(clean_detail(result.detail), []).append(result.cell)
    lines += [f"Skipped: {', '.join(cells)}: {why}" for why, cells in skipped.items()]
    lines += [*_counted_tests(results), *known_lines(results)]
    runs = dict.fromkeys(result.earlier for result in results if result.earlier)
    if runs:
        lines.append(f"{EARLIER} not run again: from {', '.join(runs)}")
    return "\n".join(lines)


def _counted_tests(results: list[CellResult]) -> list[str]:
    """How many tests passed and so on, for cells of which some failed as expected."""
    counts: dict[str, Counter[str]] = {}
    for result in results:
        if not result.earlier:
            counts.setdefault(result.unsharded, Counter()).update(result.subtests)
    return [
        f"Tests on {cell}: {counted({one: found[one] for one in SubtestOutcome if found[one]})}"
        for cell, found in counts.items()
        if found[SubtestOutcome.FAILED_AS_EXPECTED]
    ]


# Outcomes of commands that came to their end, so that no test is missing.
_ENDED = frozenset({Outcome.PASSED, Outcome.FAILED, Outcome.SPLAT})


def known_lines(results: list[CellResult]) -> list[str]:
    """Which tests are known to fail and passed, and which globs of the matrix fit no test that ran.

    The slices of a cell count together, as each runs only some of its tests.
    """
    met: dict[str, dict[str, tuple[int, int]]] = {}
    for result in results:
        # What did not run its tests to their end says nothing about those that it did not come to.
        if result.earlier or not result.subtests or result.outcome not in _ENDED:
            continue
        for use in result.known:
            cells = met.setdefault(use.test, {})
            ran, failed = cells.get(result.unsharded, (0, 0))
            cells[result.unsharded] = (ran + use.ran, failed + use.failed)
    passed: dict[str, list[str]] = {}
    for test, cells in met.items():
        if good := [cell for cell, (ran, failed) in cells.items() if ran and not failed]:
            passed.setdefault(", ".join(good), []).append(test)
    lines = [f"Known to fail, and passed on {cells}: {first_of(tests)}" for cells, tests in passed.items()]
    unmet = [test for test, cells in met.items() if not any(ran for ran, _ in cells.values())]
    return lines + ([f"Known failures that fit no test that ran: {first_of(unmet)}"] if unmet else [])


def noun(results: list[CellResult]) -> str:
    """The word for one result: `step` where disks are handed on, else `cell`."""
    return "step" if any(result.labels for result in results) else "cell"


def summary(results: list[CellResult], seconds: float | None) -> str:
    """`6 cells in 12.3s: 4 passed, 2 failed`."""
    totals: dict[Outcome, int] = {}
    for result in results:
        totals[result.outcome] = totals.get(result.outcome, 0) + 1
    counted = ", ".join(f"{totals[outcome]} {outcome}" for outcome in Outcome if outcome in totals)
    cells = f"{len(results)} {noun(results)}{'s' if len(results) != 1 else ''}"
    return f"{cells}{f' in {format_seconds(seconds)}' if seconds is not None else ''}: {counted}"


def failures(results: list[CellResult], run: Path) -> list[list[CellResult]]:
    """The cells that are not as expected, grouped by the same failure."""
    from quizmatrix.report import findings

    alike: dict[tuple[str, ...], list[CellResult]] = {}
    for result in results:
        if not result.is_as_expected:
            by_finding = result.outcome in BY_CONSOLE or result.outcome is Outcome.TIMED_OUT
            finding = findings.deciding_finding(result) if by_finding else None
            # The same finding is the same failure, even if the traces differ in details.
            why = (finding.fingerprint,) if finding else (result.detail, *evidence_lines(result, run))
            alike.setdefault((verdict_words(result), *why), []).append(result)
    return list(alike.values())


def explanations(results: list[CellResult], run: Path, *, colour: bool = False) -> str:
    """A paragraph for each group of `failures`."""
    paragraphs = []
    for group in failures(results, run):
        words, detail = verdict_words(group[0]), group[0].detail
        head = f"{', '.join(result.cell for result in group)}: "
        head += paint(words, group[0].outcome, colour) + (f": {clean_detail(detail)}" if detail else "")
        lines = [head, *(f"    {line}" for line in evidence_lines(group[0], run))]
        if group[0].release is not None:
            lines.append(f"  logs: {places(group, run)}")
        lines += [f"  disks it was given: {place}" for place in kept_disks(group, run)]
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def evidence_lines(result: CellResult, run: Path) -> list[str]:
    """The lines that explain an outcome: the finding, or the end of the output."""
    return _outcome_lines(result, run / result.folder) + running_lines(result, run)


def running_lines(result: CellResult, run: Path) -> list[str]:
    """The test that was running when the guest died or was stopped, and the end of what it had printed."""
    if not result.running:
        return []
    printed = tail(run / result.folder / RUNNING, _TAIL_LINES)
    return [f"{result.running} was running{', and had printed:' if printed else ''}", *printed]


def _outcome_lines(result: CellResult, folder: Path) -> list[str]:
    if result.outcome in BY_CONSOLE:
        from quizmatrix.report import findings

        finding = findings.deciding_finding(result)
        if finding is not None:
            return findings.important_lines(finding, folder)
        return _console_lines(folder / "console.log")
    stdout, stderr = (tail(folder / name, _TAIL_LINES) for name in ("stdout", "stderr"))
    if stdout and stderr:
        return ["stdout:", *stdout, "stderr:", *stderr]
    return stdout or stderr


def _console_lines(path: Path) -> list[str]:
    """The console's lines from its first finding on; without one, its last lines."""
    try:
        with path.open("rb") as file:
            data = file.read(_CONSOLE_BYTES)
    except OSError:
        return []
    start = first_finding(data)
    if start is None:
        return tail(path, _TAIL_LINES)
    return clean_lines(data)[start : start + _TAIL_LINES]


def places(group: list[CellResult], run: Path) -> str:
    """The folders of the cells, written so that a shell expands them: `RUN/{CELL,CELL}/`."""
    folders = [result.folder for result in group]
    return f"{run}/" + (folders[0] if len(folders) == 1 else "{" + ",".join(folders) + "}") + "/"


def kept_disks(group: list[CellResult], run: Path) -> list[str]:
    """The folders with the disks of failed cells, in the state in which the cells got them."""
    kept = dict.fromkeys(result.labels.kept for result in group if result.labels)
    return [f"{run / folder}/" for folder in kept if folder]


def whole(
    results: list[CellResult],
    run: Path,
    seconds: float | None,
    *,
    colour: bool = False,
    every_test: bool = False,
) -> str:
    """The whole report as text: grid, failing cells, what they have in common, tests, and totals.

    run: the run directory. seconds: how long the run took. every_test: see testtable.whole.
    """
    from quizmatrix.report import findings, testtable
    from quizmatrix.report.common import common_sentence

    parts = [
        grid(results, colour=colour),
        notes(results),
        explanations(results, run, colour=colour),
        findings.other_paragraphs(results, run),
        common_sentence(results),
        testtable.whole(results, run, every=every_test, colour=colour),
        f"{summary(results, seconds)}\nresults: {run}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
