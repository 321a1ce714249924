"""Says what changed since the last run of the same kind: as text for --quiet, as a status for --fail-on."""

from __future__ import annotations

from quizmatrix.core.text import clean_line
from quizmatrix.model.outcome import EXIT_FAILED, EXIT_NO_VERDICT, EXIT_OK
from quizmatrix.model.result import CellResult
from quizmatrix.model.subtest import SubtestOutcome
from quizmatrix.report.compare import UNTESTED, Change, Comparison, Difference, render
from quizmatrix.report.grid import command_words
from quizmatrix.runs.directory import RunDirectory


def status_of_news(status: int, news: Comparison | None, results: list[CellResult]) -> int:
    """The exit status where only regressions count, and not what failed before.

    status: the exit status where everything counts. It is returned where there is no earlier run to compare
    with, and where nothing could be tested. A failure that was never tested before counts as a regression.
    """
    if news is None or status == EXIT_NO_VERDICT:
        return status
    bad = {result.cell for result in results if not result.is_as_expected}
    if any(_counts(line, bad) for line in news.lines):
        return status or EXIT_FAILED
    if any(not result.outcome.is_verdict and not result.is_as_expected for result in results):
        return EXIT_NO_VERDICT
    return EXIT_OK


def _counts(line: Difference, bad: set[str]) -> bool:
    if line.change is not Change.NEW:
        return line.change is Change.REGRESSED
    if not line.name:
        return not bad.isdisjoint(line.cells)
    return line.after in (SubtestOutcome.FAILED, SubtestOutcome.KILLED)


def words_of_news(news: Comparison, run_directory: RunDirectory, *, colour: bool) -> str:
    """What changed, as text for a mail; empty where nothing changed.

    A run in which no cell could be tested is always reported, so that somebody notices.
    """
    results = run_directory.results
    news = news.where(lambda line: line.change is not Change.STILL_FAILING or line.before != line.after)
    if news.lines:
        what = clean_line(command_words(results) or results.matrix)
        head = f"{news.before} -> {news.after}: {what}"
        return f"{head}\n\n{render(news, colour=colour)}\n\nlogs: {run_directory.folder}"
    if results.cells and all(result.outcome in UNTESTED for result in results.cells):
        details = list(dict.fromkeys(clean_line(result.detail) for result in results.cells if result.detail))
        return "\n".join(["no cell could be tested", *(f"  {detail}" for detail in details[:5])])
    return ""
