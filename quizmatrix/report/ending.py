"""Prints the end of a run: the grid and what changed, or a few lines about a single cell."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from quizmatrix.core.text import clean_detail, wants_colour
from quizmatrix.core.units import format_seconds
from quizmatrix.model.options import ResultOptions
from quizmatrix.model.outcome import EXIT_OK, Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.subtest import counted
from quizmatrix.report import builds, grid, outputs
from quizmatrix.report.progress import Screen
from quizmatrix.runs import directory
from quizmatrix.runs.directory import RunDirectory

if TYPE_CHECKING:
    from quizmatrix.report.compare import Comparison


def print_run(
    run_directory: RunDirectory, options: ResultOptions, changed: Comparison | None, seconds: float
) -> None:
    """Print the grid of a run that has ended; with --quiet only what has changed, where that is known.

    seconds: how long the run took.
    """
    results, folder = run_directory.results.cells, run_directory.folder
    # If a report is written to stdout, nothing else may be.
    out = sys.stderr if outputs.use_stdout(options) else sys.stdout
    if options.quiet and changed is not None:
        from quizmatrix.report import news

        text = news.words_of_news(changed, run_directory, colour=wants_colour(out))
        if text:
            Screen(out).print(text)
        return
    is_good = run_directory.results.exit_code == EXIT_OK
    if options.quiet and is_good and not any(result.flaky for result in results):
        return
    text = grid.whole(results, folder, seconds, colour=wants_colour(out))
    Screen(out).print(text.rstrip())
    if any(result.outcome is Outcome.CANCELLED for result in results):
        Screen(out).print(f"to go on: quizmatrix run --resume {directory.name_of(folder)}")
    if options.verbose:
        for line in filter(None, (*builds.lines(results), _allowed(results))):
            Screen(out).print(line)


def print_single(result: CellResult, folder: Path, options: ResultOptions) -> None:
    """Print to stderr how a single cell ended, and why, as far as its own output does not show that.

    folder: the run directory.
    """
    screen = Screen(sys.stderr)
    plain = result.outcome in (Outcome.PASSED, Outcome.FAILED) and not result.detail and not result.flaky
    bad, found = _tests_and_findings(result, folder)
    plain = plain and not bad and not found
    if not plain:
        words = grid.verdict_words(result)
        detail = "".join(f": {clean_detail(text)}" for text in (result.flaky, result.detail) if text)
        screen.print(f"quizmatrix: {result.cell}: {words}{detail}")
        if result.outcome in grid.BY_CONSOLE:
            for line in grid.evidence_lines(result, folder):
                screen.print(f"    {line}")
        else:
            if found:
                screen.print(found)
            for line in grid.running_lines(result, folder):
                screen.print(f"    {line}")
        for line in bad:
            screen.print(f"    {line}")
    for line in grid.known_lines([result]):
        screen.print(f"  {line}")
    if result.release is not None and (options.verbose or not (plain or options.quiet)):
        screen.print(f"  logs: {folder / result.folder}/")
    if options.verbose:
        _print_details(result, screen)


def _print_details(result: CellResult, screen: Screen) -> None:
    times = result.timings
    named = [("prepare", times.prepare), ("boot", times.boot), ("profiles", times.profiles)]
    named += [("command", times.command), ("total", times.total)]
    shown = [f"{name} {format_seconds(value)}" for name, value in named if value is not None]
    screen.print(f"  {result.release or result.kernel}: {', '.join(shown)}")
    for line in filter(None, (*builds.lines([result]), _allowed([result]))):
        screen.print(f"  {line}")
    if result.subtests:
        screen.print(f"  tests: {counted(result.subtests)}")


def _tests_and_findings(result: CellResult, folder: Path) -> tuple[list[str], str]:
    """The failed tests of a cell, and its findings. Imports their modules only where there are any."""
    bad: list[str] = []
    found = ""
    if result.subtests:
        from quizmatrix.report import testtable

        bad = testtable.failed_test_lines(result, folder)
    if result.findings:
        from quizmatrix.report import findings

        found = findings.other_paragraphs([result], folder)
    return bad, found


def _allowed(results: list[CellResult]) -> str:
    """The findings that the matrix allows."""
    if not any(result.findings for result in results):
        return ""
    from quizmatrix.report import findings

    return findings.allowed(results)
