"""The command `quizmatrix shell` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.guestoptions import add_guest
from quizmatrix.cli.options import (
    Commands,
    Parser,
    add_command,
    add_config,
    add_image_and_profiles,
    add_limits,
    add_no_provide,
    add_sources,
    run_options,
)


def add_parser(commands: Commands[Parser]) -> None:
    """Add `shell`."""
    parser = add_command(
        commands,
        "shell",
        shell,
        takes_command=True,
        uses_cache=True,
        help="open a terminal in one cell",
        usage="quizmatrix shell CELL [OPTION]... [-- COMMAND [ARG]...]",
        description="Boot CELL and open a terminal in it, or run COMMAND in that terminal. With --image "
        "debian, exec and cp reach the same guest meanwhile. The exit status is the session's.",
    )
    parser.add_argument("only", nargs=1, metavar="CELL", help="a cell like 6.1-s390x")
    group = parser.add_argument_group("which guest")
    group.add_argument("--source", metavar="S", help="the source of a kernel that names none")
    add_config(group)
    add_image_and_profiles(group)
    add_no_provide(group)
    add_limits(parser)
    add_sources(parser)
    add_guest(parser, takes_stdin=False)


def shell(args: argparse.Namespace) -> int:
    """Open a terminal in one cell; returns the session's exit status."""
    from quizmatrix.cli.signals import watch_signals
    from quizmatrix.terminal.shell import open_shell

    return open_shell(run_options(args), args.command or [], watch_signals)
