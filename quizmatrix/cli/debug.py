"""The command `quizmatrix debug` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.options import Commands, Parser, add_command


def add_parser(commands: Commands[Parser]) -> None:
    """Add `debug`."""
    parser = add_command(
        commands,
        "debug",
        debug,
        takes_command=True,
        uses_cache=True,
        help="open a debugger on a guest, or on the memory of one that died",
        usage="quizmatrix debug RUN/CELL [-- SCRIPT [ARG]...]",
        description="Of a guest that runs with `-p debug`: gdb. Of one whose memory was kept: drgn, with the "
        "debug information of its kernel, which is fetched for Debian's; else crash. SCRIPT: a drgn script, "
        "which has the kernel as `prog`.",
    )
    parser.add_argument("place", metavar="RUN/CELL", help="latest/6.1-s390x")


def debug(args: argparse.Namespace) -> int:
    """Become the debugger."""
    from quizmatrix.terminal import debugging

    debugging.debug(args.place, args.command or [])
    return 0
