"""The history as a run uses it. An error in the history does not fail the run; it is reported at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from quizmatrix.core.errors import HistoryError
from quizmatrix.core.text import clean_line
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.model.task import Task
from quizmatrix.report.progress import tell
from quizmatrix.runs.directory import RunDirectory
from quizmatrix.runs.history.record import History

if TYPE_CHECKING:
    from quizmatrix.report.compare import Comparison

T = TypeVar("T")


class RunHistory:
    """The history, as a run needs it: what goes wrong with it is told at the end and no fault of the run."""

    def __init__(self) -> None:
        """Nothing is opened before it is asked for."""
        self._history = History(tell)
        self.error: HistoryError | None = None

    def expected_seconds(self, tasks: list[Task], command: list[str]) -> dict[str, float]:
        """See History.expected_seconds. A single task needs no order."""
        if len(tasks) < 2:
            return {}
        ids = [task.id for task in tasks]
        return self._try(lambda: self._history.expected_seconds(ids, command), {})

    def mark_flaky(self, results: list[CellResult]) -> list[CellResult]:
        """See History.mark_flaky."""
        return self._try(lambda: self._history.mark_flaky(results), results)

    def since_last(self, results: RunResults, place: Path) -> Comparison | None:
        """See baseline.since_last."""
        from quizmatrix.report import baseline

        return self._try(lambda: baseline.since_last(self._history, results, place), None)

    def record(self, run_directory: RunDirectory) -> None:
        """Keep the run that has ended."""
        results: RunResults = run_directory.results
        # What was stopped before anything had ended tells nothing.
        if any(result.outcome is not Outcome.CANCELLED for result in results.cells):
            self._try(lambda: self._history.record(run_directory.folder, results), None)

    def _try(self, action: Callable[[], T], otherwise: T) -> T:
        if self.error is None:
            try:
                return action()
            except HistoryError as error:
                self.error = error
        return otherwise


def sentence(error: HistoryError) -> str:
    """What is said of a history that cannot be used."""
    return clean_line(f"{error}. {error.next_step}".rstrip(". ") + ".", 1000)


def catch_up(history: History) -> None:
    """Record what is in run directories only; what is wrong with the history is only said."""
    try:
        history.catch_up()
    except HistoryError as error:
        tell(sentence(error))
