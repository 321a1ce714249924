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
        description="A guest that still runs with `-p debug` gets gdb. One whose memory was kept (`-p debug` "
        "for a panic, `--on-timeout dump` for a time limit) gets drgn, or crash(8) where drgn is not "
        "installed; debug information of Debian's kernels is fetched first (400 to 900 MB). drgn runs SCRIPT "
        "with the kernel as `prog`.",
    )
    parser.add_argument("place", metavar="RUN/CELL", help="latest/6.1-s390x")


def debug(args: argparse.Namespace) -> int:
    """Become the debugger."""
    from quizmatrix.terminal import debugging

    debugging.debug(args.place, args.command or [])
    return 0
