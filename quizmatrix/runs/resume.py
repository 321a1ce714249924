"""`quizmatrix run --resume RUN`: runs the unfinished cells of a run, into its own directory."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from quizmatrix.core.errors import QuizmatrixError, UsageError, host_error
from quizmatrix.model.options import NAMES, NAMES_OF, REPORTS, RunRequest, with_values
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.task import Task, with_sources
from quizmatrix.runs import directory
from quizmatrix.runs.directory import RunDirectory
from quizmatrix.runs.replay import replay
from quizmatrix.runs.rerun import Choice, ReadArguments, as_run, options_of

# Options that the resumed run takes over: all but those that concern one invocation only.
_TAKEN_OVER = NAMES - NAMES_OF["once"] - {"output", "max_time", "quiet", "verbose"}

# Outcomes of cells that were stopped or did not start, unless that is expected of them.
_UNENDED = frozenset({Outcome.CANCELLED, Outcome.SKIPPED, Outcome.UNPREPARED})


def with_its_command(request: RunRequest, read: ReadArguments) -> RunRequest:
    """The request with the command and options of the run that --resume names. Changes to that run's folder.

    Options that are typed now win. Raises UsageError where MATRIX, COMMAND or --output is given, or where
    there is no such run.
    """
    options = request.options
    run, matrix = options.once.resume or "", options.selection.matrix
    said = [*([matrix] if matrix else []), *(["COMMAND"] if request.command else [])]
    said += ["--output"] if options.results.output else []
    if said:
        raise UsageError(
            f"--resume goes on with {run} as it was begun, and takes no {' and no '.join(said)}",
            next_step="Leave that out, or leave out --resume.",
        )
    folder = directory.find_run(run).absolute()
    directory.check_not_going_on(folder)
    results = directory.load(folder)
    if not results.matrix:
        raise UsageError(f"{results.run} was a terminal's session, which cannot be resumed")
    # They are relative to the folder where they are typed.
    targets = {form: getattr(options.results, form) for form in (*REPORTS, "coverage")}
    here = {
        form: str(Path(target).absolute()) for form, target in targets.items() if target not in (None, "-")
    }
    request = msgspec.structs.replace(request, options=with_values(options, {"resume": str(folder), **here}))
    try:
        os.chdir(results.folder)
    except OSError as error:
        raise host_error(f"go to {results.folder}, where {results.run} was started", error) from error
    return as_run(request, results, options_of(results, read), _TAKEN_OVER)


def choose(run: str, tasks: list[Task]) -> Choice:
    """Choose from `tasks` those that the run in the folder `run` has not finished.

    An unfinished task is run together with the tasks that made its disks. Raises UsageError where nothing is
    left to run.
    """
    folder = Path(run)
    results = directory.load(folder)
    ended = {
        result.cell: result
        for result in results.cells
        if result.outcome not in _UNENDED or result.is_as_expected
    }
    planned = _planned(folder) or [task.id for task in tasks]
    unended = [cell for cell in planned if cell not in ended]
    if not unended and results.finished is not None:
        raise UsageError(
            f"nothing is left to run of {results.run}: all its cells have ended",
            next_step=f"quizmatrix runs show {results.run}",
        )
    known = {task.id for task in tasks}
    if gone := [cell for cell in unended if cell not in known]:
        raise UsageError(
            f"{results.run} cannot be resumed",
            cause=f"its matrix, {results.matrix}, does not make {', '.join(gone)} any more",
            next_step="Start a new run instead of resuming it.",
        )
    left = with_sources(tasks, unended)
    return Choice(
        tasks=[task for task in tasks if task.id in left],
        order=planned,
        earlier=[(folder, result) for cell, result in ended.items() if cell not in left],
        is_resumed=True,
    )


def _planned(folder: Path) -> list[str]:
    """The ids of all tasks of the run; empty where its events are lost."""
    try:
        told = replay(folder / directory.EVENTS)
    except QuizmatrixError:
        return []
    return told.planned


def open_directory(run: str, chosen: Choice) -> RunDirectory:
    """Open the directory of the run that is resumed. Raises UsageError where that run is still going on."""
    folder = Path(run)
    run_directory = RunDirectory(folder, directory.load(folder))
    run_directory.resume([result for _, result in chosen.earlier], [task.id for task in chosen.tasks])
    return run_directory
