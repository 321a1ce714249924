"""The command `quizmatrix run` and its parser."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from quizmatrix.cli.guestoptions import add_guest
from quizmatrix.cli.options import (
    EXIT_STATUSES,
    Commands,
    Parser,
    add_command,
    add_conduct,
    add_limits,
    add_no_provide,
    add_results,
    add_selection,
    add_sources,
    run_options,
    run_request,
)

if TYPE_CHECKING:
    from quizmatrix.model.options import RunOptions


def add_parser(commands: Commands[Parser]) -> None:
    """Add `run`."""
    parser = add_command(
        commands,
        "run",
        run,
        takes_command=True,
        uses_cache=True,
        help="run a command in every cell of a matrix",
        usage="quizmatrix run [MATRIX] [OPTION]... -- COMMAND [ARG]...\n"
        "       quizmatrix run handoff [OPTION]...\n"
        "       quizmatrix run --resume RUN [OPTION]...",
        description="Run COMMAND in every cell of MATRIX and print a grid of the outcomes. A COMMAND of one "
        "word is a script for the guest's sh; among several words, && || and | are the shell's operators. A "
        "single cell behaves as if COMMAND ran here. A matrix with [handoff], such as `handoff`, has its own "
        "commands and takes none: they write to disks in one cell, and read these disks in the others.",
        epilog=EXIT_STATUSES,
    )
    _add_words(parser)


def _add_words(parser: Parser) -> None:
    add_selection(parser)
    add_limits(parser)
    add_sources(parser)
    group = add_conduct(parser)
    add_no_provide(group)
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--last-failed",
        action="store_true",
        help="run only the cells that failed last with this command, or all if none did; without COMMAND, "
        "repeat the last run in this folder",
    )
    which.add_argument(
        "--resume",
        metavar="RUN",
        help="continue a run that was cut short: run its unfinished cells, into the same directory",
    )
    which.add_argument(
        "--failed-first", action="store_true", help="all cells, but first those that failed last"
    )
    group.add_argument("-S", "--shell", action="store_true", help="a terminal in the guest after COMMAND")
    group.add_argument("--dry-run", action="store_true", help="print what would be run, and run nothing")
    add_guest(parser)
    group = add_results(parser)
    group.add_argument("--output", metavar="DIR", help="the run directory (new or empty)")
    group.add_argument(
        "--coverage",
        metavar="DIR",
        help="a page of the lines that ran in kernels of the variants gcov and gcov_modules",
    )
    loudness = group.add_mutually_exclusive_group()
    loudness.add_argument(
        "-q", "--quiet", action="store_true", help="print only what changed since the last run of its kind"
    )
    loudness.add_argument("-v", "--verbose", action="store_true", help="print every step and the console")


def read_arguments(arguments: list[str]) -> RunOptions:
    """Parse the options in the words after `quizmatrix run`, without COMMAND. Raises UsageError."""
    parser = Parser(prog="quizmatrix run")
    _add_words(parser)
    return run_options(parser.parse_args(arguments))


def run(args: argparse.Namespace) -> int:
    """Run COMMAND in the selected cells, or the commands of their matrix; returns the run's exit status."""
    from quizmatrix.cli.signals import watch_signals
    from quizmatrix.matrixrun.run import run as run_matrix

    return run_matrix(run_request(args), read_arguments, watch_signals)
