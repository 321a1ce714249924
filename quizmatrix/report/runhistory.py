"""The history as a run uses it. An error in the history does not fail the run; it is reported at the end."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from quizmatrix.core.errors import HistoryError
from quizmatrix.core.text import clean_line
from quizmatrix.model.options import RunRequest
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.model.task import Task
from quizmatrix.report.progress import tell
from quizmatrix.runs import slices
from quizmatrix.runs.directory import RunDirectory

if TYPE_CHECKING:
    from quizmatrix.report.compare import Comparison
    from quizmatrix.runs.history.record import History

T = TypeVar("T")


class RunHistory:
    """The history as a run uses it. After an error, kept in `error`, it answers as if it were empty."""

    def __init__(self) -> None:
        """The history's file is opened only when it is needed."""
        self.error: HistoryError | None = None

    @cached_property
    def _history(self) -> History:
        return open_history()

    def expected_seconds(self, tasks: list[Task], command: list[str]) -> dict[str, float]:
        """See History.expected_seconds. Empty for a single task, which needs no order."""
        if len(tasks) < 2:
            return {}
        ids = [task.id for task in tasks]
        return self._try(lambda: self._history.expected_seconds(ids, command), {})

    def test_seconds(self, request: RunRequest, tasks: list[Task]) -> slices.TestSeconds:
        """See slices.seconds_for."""
        if not any(task.cell.shard for task in tasks):
            return {}
        return self._try(lambda: slices.seconds_for(request, tasks, self._history), {})

    def mark_flaky(self, results: list[CellResult]) -> list[CellResult]:
        """See History.mark_flaky."""
        return self._try(lambda: self._history.mark_flaky(results), results)

    def since_last(self, results: RunResults, place: Path) -> Comparison | None:
        """See baseline.since_last."""
        from quizmatrix.report import baseline

        return self._try(lambda: baseline.since_last(self._history, results, place), None)

    def record(self, run_directory: RunDirectory) -> None:
        """Record a run that has ended."""
        results: RunResults = run_directory.results
        # A run that was stopped before any cell had ended is not recorded.
        if any(result.outcome is not Outcome.CANCELLED for result in results.cells):
            self._try(lambda: self._history.record(run_directory.folder, results), None)

    def _try(self, action: Callable[[], T], otherwise: T) -> T:
        if self.error is None:
            try:
                return action()
            except HistoryError as error:
                self.error = error
        return otherwise


def open_history() -> History:
    """The history, which tells messages on stderr."""
    from quizmatrix.runs.history.record import History

    return History(tell)


def sentence(error: HistoryError) -> str:
    """An error of the history as one line."""
    return clean_line(f"{error}. {error.next_step}".rstrip(". ") + ".", 1000)


def catch_up(history: History) -> None:
    """Record the runs that are not yet in the history. An error is only printed."""
    try:
        history.catch_up()
    except HistoryError as error:
        tell(sentence(error))
