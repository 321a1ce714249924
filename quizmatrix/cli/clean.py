"""The command `quizmatrix clean` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.options import Commands, Parser, add_command


def add_parser(commands: Commands[Parser]) -> None:
    """Add `clean`."""
    parser = add_command(commands, "clean", clean, help="empty the cache")
    parser.add_argument("--runs", action="store_true", help="remove the kept runs and the history too")
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed")


def clean(args: argparse.Namespace) -> int:
    """Remove the cache, and with --runs the kept runs and the history; none of it where any is in use."""
    from quizmatrix.runs import clearing

    clearing.clear(with_runs=args.runs, dry_run=args.dry_run)
    return 0
