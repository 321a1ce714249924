"""The command `quizmatrix exec` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.options import Commands, Parser, add_command
from quizmatrix.core.errors import UsageError


def add_parser(commands: Commands[Parser]) -> None:
    """Add `exec`."""
    parser = add_command(
        commands,
        "exec",
        execute,
        takes_command=True,
        help="run a command in a guest with an open terminal",
        usage="quizmatrix exec RUN/CELL -- COMMAND [ARG]...",
    )
    parser.add_argument("place", metavar="RUN/CELL", help="latest/6.1-s390x")


def execute(args: argparse.Namespace) -> int:
    """Run a command in a guest with an open terminal; returns its exit status."""
    from quizmatrix.terminal import openguest

    if not args.command:
        raise UsageError("there is no command to run", next_step="quizmatrix exec latest/6.1-s390x -- dmesg")
    return openguest.execute(args.place, args.command)
