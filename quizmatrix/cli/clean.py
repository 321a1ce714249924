"""The command `quizmatrix clean` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.options import Commands, Parser, add_command


def add_parser(commands: Commands[Parser]) -> None:
    """Add `clean`."""
    parser = add_command(commands, "clean", clean, help="remove the cache")
    parser.add_argument("--runs", action="store_true", help="also remove the kept runs and the history")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be removed")


def clean(args: argparse.Namespace) -> int:
    """Remove the cache, and with --runs the kept runs and the history; nothing if any of it is in use."""
    from quizmatrix.runs import clearing

    clearing.clear(with_runs=args.runs, dry_run=args.dry_run)
    return 0
