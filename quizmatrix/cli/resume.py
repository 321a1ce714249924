"""`quizmatrix run --resume RUN`: what a run had not finished, run now into the same directory."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from quizmatrix.cli import again
from quizmatrix.cli.again import Again
from quizmatrix.core.errors import QuizmatrixError, UsageError, host_error
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.task import Task, with_sources
from quizmatrix.report import outputs
from quizmatrix.runs import directory
from quizmatrix.runs.directory import RunDirectory
from quizmatrix.runs.replay import replay

# Options that say how the first part was to be run or shown, and not what it is.
_OF_ITS_FIRST_PART = frozenset(
    {"resume", "output", "last_failed", "failed_first", "max_time", "dry_run", "shell", "quiet", "verbose"}
)

# How cells end that were not let to.
_UNENDED = frozenset({Outcome.CANCELLED, Outcome.SKIPPED})


def with_its_command(args: argparse.Namespace) -> argparse.Namespace:
    """The command line of the run that --resume names, in the folder where it was started.

    What is on this command line wins. UsageError where it says what is to be run, or where there is no such
    run.
    """
    said = [*([args.matrix] if args.matrix else []), *(["COMMAND"] if args.command else [])]
    said += ["--output"] if args.output else []
    if said:
        raise UsageError(
            f"--resume goes on with {args.resume} as it was begun, and takes no {' and no '.join(said)}",
            next_step="Leave that out, or leave out --resume.",
        )
    folder = directory.find_run(args.resume).absolute()
    directory.check_not_going_on(folder)
    results = directory.load(folder)
    if not results.matrix:
        raise UsageError(f"{results.run} was a terminal's session, which cannot be resumed")
    old = again.as_run(args, results, _OF_ITS_FIRST_PART)
    old.resume = str(folder)
    for form, target in outputs.asked(args).items():
        if target != outputs.STDOUT:
            setattr(old, form, str(Path(target).absolute()))
    try:
        os.chdir(results.folder)
    except OSError as error:
        raise host_error(f"go to {results.folder}, where {results.run} was started", error) from error
    return old


def choose(run: str, tasks: list[Task]) -> Again:
    """What of `tasks` the run in the folder `run` has not finished; the rest as it has ended.

    What made the disks of an unfinished one is run with it. UsageError where nothing is left.
    """
    folder = Path(run)
    results = directory.load(folder)
    ended = {result.cell: result for result in results.cells if result.outcome not in _UNENDED}
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
            next_step="Run it anew.",
        )
    left = with_sources(tasks, unended)
    return Again(
        tasks=[task for task in tasks if task.id in left],
        order=planned,
        earlier=[(folder, result) for cell, result in ended.items() if cell not in left],
        is_resumed=True,
    )


def _planned(folder: Path) -> list[str]:
    """The ids of all that the run was to have results of; empty where its events are lost."""
    try:
        told = replay(folder / directory.EVENTS)
    except QuizmatrixError:
        return []
    return told.planned


def open_directory(run: str, chosen: Again) -> RunDirectory:
    """The run directory, to go on with; UsageError where the run is still going on."""
    folder = Path(run)
    run_directory = RunDirectory(folder, directory.load(folder))
    run_directory.resume([result for _, result in chosen.earlier], [task.id for task in chosen.tasks])
    return run_directory
