"""Repeats earlier runs: takes over their command and options, and finds the failed cells (--last-failed)."""

from __future__ import annotations

import os
from collections.abc import Callable, Set
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quizmatrix.core.errors import QuizmatrixError, UsageError
from quizmatrix.model.options import NAMES_OF, RunOptions, RunRequest
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.model.task import Task, with_sources
from quizmatrix.prepare import selection
from quizmatrix.runs import directory
from quizmatrix.runs.history.kept import RunKind

if TYPE_CHECKING:
    from quizmatrix.runs.history.record import History

# Options that --last-failed takes over. The others (jobs, reports, --fail-fast) were meant for one run only.
_TAKEN_OVER = NAMES_OF["selection"] | NAMES_OF["limits"] | NAMES_OF["guest"] | {"build"}

# Parses the `arguments` of a run. Runs of an earlier quizmatrix have no `options`.
ReadArguments = Callable[[list[str]], RunOptions]


def kind_of(request: RunRequest) -> RunKind:
    """The kind of the requested run: runs of the same kind are compared with each other."""
    matrix = request.options.selection.matrix or selection.DEFAULT_MATRIX
    is_path = "/" in matrix or matrix.endswith(".toml")
    return RunKind(
        command=request.command or [],
        matrix=str(Path(matrix).absolute()) if is_path else matrix,
        folder=current_folder(),
    )


def current_folder() -> str:
    """The path of the current folder, not resolved; empty where the folder was removed."""
    try:
        return os.getcwd()  # noqa: PTH109 - as text, and never resolved
    except OSError:
        return ""


def options_of(results: RunResults, read: ReadArguments) -> RunOptions:
    """The options of a run. Raises UsageError where today's parser refuses an earlier version's arguments."""
    return read(results.arguments) if results.options is None else results.options


def with_last_command(request: RunRequest, history: History, read: ReadArguments) -> RunRequest:
    """The request with the command and options of the last run in this folder, for --last-failed.

    Options that are typed now win; options that concern one run only are not taken over. Raises UsageError
    where no run was started here (or none of this MATRIX, where one is named).
    """
    history.catch_up()
    here = current_folder()
    wanted = kind_of(request).matrix if request.options.selection.matrix else None
    for results in history.runs():
        # Terminal sessions have no matrix. A matrix that hands disks on has its own commands.
        if results.matrix and results.folder == here and wanted in (None, results.matrix):
            break
    else:
        raise UsageError(
            "there is no earlier run whose command could be run again",
            cause=f"no run of {request.options.selection.matrix or 'any matrix'} was started in {here}",
            next_step="Give the command after `--`.",
        )
    return as_run(request, results, options_of(_with_options(results, history), read), _TAKEN_OVER)


def _with_options(results: RunResults, history: History) -> RunResults:
    """The results from the run directory, which holds the options; the history does not."""
    recorded = history.find(results.run)
    try:
        found = directory.load(recorded.place) if recorded is not None else results
    except QuizmatrixError:
        return results
    return found if found.run == results.run else results


def as_run(request: RunRequest, results: RunResults, earlier: RunOptions, taken_over: Set[str]) -> RunRequest:
    """The request with an earlier run's command and options.

    taken_over: the names of the options to take over; those that are typed now are not.
    """
    return msgspec.structs.replace(
        request,
        options=request.options.taking(earlier, taken_over - request.typed),
        command=results.command or None,
        # The next --last-failed repeats the same run, without what is typed now.
        arguments=results.arguments,
        repeated=earlier,
    )


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the selected tasks are run.

    tasks: those to run. order: the ids of all tasks that will have results. first: the ids of tasks to start
    first. earlier: results of tasks that are not run again, each with its run's directory. is_resumed:
    whether that directory is this run's own (--resume).
    """

    tasks: list[Task]
    order: list[str]
    first: frozenset[str] = frozenset()
    earlier: list[tuple[Path, CellResult]] = []
    is_resumed: bool = False

    @property
    def is_single(self) -> bool:
        """Whether the run consists of one task only."""
        return len(self.tasks) == 1 and not self.earlier

    def merged(self, now: list[CellResult]) -> list[CellResult]:
        """The results of this run (`now`) together with the earlier ones, in `order`."""
        found = {result.cell: result for result in [*(result for _, result in self.earlier), *now]}
        return [found[one] for one in self.order if one in found]


def choose(
    request: RunRequest, tasks: list[Task], open_history: Callable[[], History], tell: Callable[[str], None]
) -> Choice:
    """Choose from `tasks` those that --last-failed runs, or that --failed-first starts first.

    A task's last result in a run of the same command, matrix and folder counts. Where none failed, or there
    was no such run, all are run, as pytest does. A failed task is run together with the tasks that made its
    disks. Raises HistoryError where the history cannot be read.
    """
    order = [task.id for task in tasks]
    once = request.options.once
    if not (once.last_failed or once.failed_first):
        return Choice(tasks=tasks, order=order)
    history = open_history()
    history.catch_up()
    known = history.latest(kind_of(request))
    before = [known[one] for one in order if one in known]
    failed = with_sources(tasks, {result.cell for _, _, result in before if not result.is_as_expected})
    if not failed:
        why = "none of these cells failed last" if before else "there is no earlier run of these cells"
        tell(f"{why}: all are run")
        return Choice(tasks=tasks, order=order)
    if not once.last_failed:
        return Choice(tasks=tasks, order=order, first=failed)
    return Choice(
        tasks=[task for task in tasks if task.id in failed],
        order=[one for one in order if one in failed or one in known],
        earlier=[
            (place, msgspec.structs.replace(result, earlier=run))
            for place, run, result in before
            if result.cell not in failed
        ],
    )
