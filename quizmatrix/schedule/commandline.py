"""Makes the command line that repeats one cell of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from quizmatrix.model.options import RunOptions
from quizmatrix.model.spec import CommandLine
from quizmatrix.model.task import Task
from quizmatrix.prepare import currentfolder
from quizmatrix.runs.rerun import current_folder


def repeating(options: RunOptions) -> Callable[[Task], CommandLine]:
    """Return a function that makes the command line to repeat a task of a run with these options."""
    folder = _folder()
    words = of_a_cell(options).words()
    matrix = [options.selection.matrix] if options.selection.matrix else []

    def command_line(task: Task) -> CommandLine:
        # Also select all cells that had its disks before.
        cells = dict.fromkeys(task.labels.cells) if task.labels else [task.cell.id]
        argv = ["quizmatrix", "run", *matrix, "--only", ",".join(cells), *words]
        return CommandLine(folder=folder, argv=argv if task.labels else [*argv, "--", *task.command])

    return command_line


def repeating_shell(options: RunOptions, command: Sequence[str]) -> Callable[[Task], CommandLine]:
    """The same for `quizmatrix shell`. command: what runs in the terminal."""
    folder = _folder()
    words = [*of_a_cell(options).words(), *(["--", *command] if command else [])]
    return lambda task: CommandLine(folder=folder, argv=["quizmatrix", "shell", task.cell.id, *words])


def of_a_cell(options: RunOptions) -> RunOptions:
    """Only the options that determine a cell, without --only and --skip, which its id replaces."""
    return RunOptions(
        selection=msgspec.structs.replace(options.selection, only=[], skip=[]),
        limits=options.limits,
        guest=options.guest,
    )


def _folder() -> str:
    """The folder to which relative paths of the command line refer, as the user's shell names it.

    The guest has the same name as a symlink.
    """
    real = current_folder()
    return currentfolder.shell_path(real) or real or "/"
