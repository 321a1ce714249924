"""The command `quizmatrix cp` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.options import Commands, Parser, add_command


def add_parser(commands: Commands[Parser]) -> None:
    """Add `cp`."""
    parser = add_command(commands, "cp", copy, help="copy files into or out of a guest with an open terminal")
    parser.add_argument("source_path", metavar="FROM", help="a path here, or RUN/CELL:/PATH")
    parser.add_argument("target_path", metavar="TO", help="a path here, or RUN/CELL:/PATH")


def copy(args: argparse.Namespace) -> int:
    """Copy a file or a folder into an open guest, or out of one."""
    from quizmatrix.terminal import openguest

    return openguest.copy(args.source_path, args.target_path)
