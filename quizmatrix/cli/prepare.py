"""The command `quizmatrix prepare` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.options import Commands, Parser, add_command, add_selection, add_sources, run_options


def add_parser(commands: Commands[Parser]) -> None:
    """Add `prepare`."""
    parser = add_command(
        commands,
        "prepare",
        prepare,
        uses_cache=True,
        help="fetch and check all that a matrix needs, and run nothing",
    )
    add_selection(parser)
    add_sources(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print only errors")


def prepare(args: argparse.Namespace) -> int:
    """Fetch and check what the cells need."""
    from quizmatrix.prepare.ahead import prepare_cells
    from quizmatrix.prepare.preparer import Policy
    from quizmatrix.prepare.selection import selected_cells

    options = run_options(args)
    policy = Policy.asked(options.conduct, thorough=True)
    return prepare_cells(selected_cells(options), policy, quiet=args.quiet)
