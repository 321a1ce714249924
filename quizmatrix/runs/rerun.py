"""Repeats earlier runs: takes over their command and options, and finds the failed cells (--last-failed)."""

from __future__ import annotations

import os
from collections.abc import Callable, Set
from pathlib import Path

import msgspec

from quizmatrix.core.errors import QuizmatrixError, UsageError
from quizmatrix.model.options import NAMES_OF, RunOptions, RunRequest
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.model.task import Task, with_sources
from quizmatrix.prepare import selection
from quizmatrix.runs import directory
from quizmatrix.runs.history.kept import RunKind
from quizmatrix.runs.history.record import History

# What is not of one run alone, as are its jobs, its reports, and whether it stopped at a failure.
_TAKEN_OVER = NAMES_OF["selection"] | NAMES_OF["limits"] | NAMES_OF["guest"] | {"build"}

# Reads the `arguments` of a run: one that an earlier quizmatrix has written has no `options`.
ReadArguments = Callable[[list[str]], RunOptions]


def kind_of(request: RunRequest) -> RunKind:
    """What runs have in common with the one that is asked for."""
    matrix = request.options.selection.matrix or selection.DEFAULT_MATRIX
    is_path = "/" in matrix or matrix.endswith(".toml")
    return RunKind(
        command=request.command or [],
        matrix=str(Path(matrix).absolute()) if is_path else matrix,
        folder=current_folder(),
    )


def current_folder() -> str:
    """The current folder as text, never resolved; empty where it is gone."""
    try:
        return os.getcwd()  # noqa: PTH109 - as text, and never resolved
    except OSError:
        return ""


def options_of(results: RunResults, read: ReadArguments) -> RunOptions:
    """The options of a run; UsageError where today's command line has not what it was given."""
    return read(results.arguments) if results.options is None else results.options


def with_last_command(request: RunRequest, history: History, read: ReadArguments) -> RunRequest:
    """What the last run here was asked for, without COMMAND the one that --last-failed means.

    What is typed now wins, and what is said of one run is not taken over. UsageError where there was no run
    here (of this MATRIX, where one is named).
    """
    history.catch_up()
    here = current_folder()
    wanted = kind_of(request).matrix if request.options.selection.matrix else None
    for results in history.runs():
        # A terminal's sessions are of no matrix. One that hands disks on has commands of its own.
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
    """The results as their run directory has them, with the options, which the history does not keep."""
    recorded = history.find(results.run)
    try:
        found = directory.load(recorded.place) if recorded is not None else results
    except QuizmatrixError:
        return results
    return found if found.run == results.run else results


def as_run(request: RunRequest, results: RunResults, earlier: RunOptions, taken_over: Set[str]) -> RunRequest:
    """The request for an earlier run, with those of its options that are taken over and not typed now."""
    return msgspec.structs.replace(
        request,
        options=request.options.taking(earlier, taken_over - request.typed),
        command=results.command or None,
        # The next run without COMMAND means the same, too.
        arguments=results.arguments,
    )


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What is run of the selected tasks. order: the ids of all that will have results. first: of those that
    start first. earlier: the results of those that are not run again, each with the directory of its run.
    is_resumed: whether that is this run itself.
    """

    tasks: list[Task]
    order: list[str]
    first: frozenset[str] = frozenset()
    earlier: list[tuple[Path, CellResult]] = []
    is_resumed: bool = False

    @property
    def is_single(self) -> bool:
        """Whether one single task is all that there is."""
        return len(self.tasks) == 1 and not self.earlier

    def merged(self, now: list[CellResult]) -> list[CellResult]:
        """The results of what was run and of what was not, in the order of the selected tasks."""
        found = {result.cell: result for result in [*(result for _, result in self.earlier), *now]}
        return [found[one] for one in self.order if one in found]


def choose(request: RunRequest, tasks: list[Task], history: History, tell: Callable[[str], None]) -> Choice:
    """What --last-failed and --failed-first leave of `tasks`, or put first.

    Of each its last result in a run of the same command, matrix and folder counts. Where none failed, or
    there was no such run, all are run, as pytest does. What made the disks of one that failed is run with it.
    HistoryError where that cannot be known.
    """
    order = [task.id for task in tasks]
    once = request.options.once
    if not (once.last_failed or once.failed_first):
        return Choice(tasks=tasks, order=order)
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
