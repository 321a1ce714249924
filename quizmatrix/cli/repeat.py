"""The command line that repeats one cell of a run: the run's own, with that cell selected and no other."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from quizmatrix.cli.again import OF_ONE_RUN, current_folder
from quizmatrix.model.spec import CommandLine
from quizmatrix.model.task import Task
from quizmatrix.prepare import currentfolder

# Beside what is of one run: the selection, which the cell's id takes the place of, and what builds anew.
LEFT_OUT = OF_ONE_RUN | {"help", "only", "skip", "build"}


def repeating(args: argparse.Namespace, session: Sequence[str] = ()) -> Callable[[Task], CommandLine]:
    """Makes the command line that repeats a task of the command that `args` are of.

    session: the words that a terminal of `quizmatrix shell` runs.
    """
    # In the folder where its relative paths are meant.
    real = current_folder()
    # By the name that the user's shell has for it, which the guest knows, too.
    folder = currentfolder.as_typed(real) or real or "/"
    words = _words(args)
    matrix = [args.matrix] if args.matrix else []

    def command_line(task: Task) -> CommandLine:
        if args.name == "shell":
            argv = ["quizmatrix", "shell", task.cell.id, *words, *(["--", *session] if session else [])]
            return CommandLine(folder=folder, argv=argv)
        handed = task.handed
        # Of disks that are handed on, all who had them before.
        ways = filter(None, (handed.written_on, handed.read_on)) if handed else [task.cell.id]
        argv = ["quizmatrix", "run", *matrix, "--only", ",".join(dict.fromkeys(ways)), *words]
        return CommandLine(folder=folder, argv=argv if handed else [*argv, "--", *task.command])

    return command_line


def _words(args: argparse.Namespace) -> list[str]:
    """The options of a command line that say what a cell is, and differ from what is the default."""
    parser = args.parser if args.name in ("run", "shell") else _parser_of_run()
    words: list[str] = []
    for action in parser._actions:
        value: Any = getattr(args, action.dest, None)
        if not action.option_strings or action.dest in LEFT_OUT or value in (None, action.default):
            continue
        option = action.option_strings[-1]
        if action.nargs == 0:
            words += [option] if value == action.const else []
            continue
        for text in value if isinstance(value, list) else [value]:
            # A word that begins with a dash would be taken for an option.
            words += [f"{option}={text}"] if text.startswith("-") else [option, text]
    return words


def _parser_of_run() -> argparse.ArgumentParser:
    from quizmatrix.cli.parser import parse

    parser: argparse.ArgumentParser = parse(["run"]).parser
    return parser
