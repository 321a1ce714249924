"""The options for the guest that a command runs in."""

from __future__ import annotations

import argparse
import os

from quizmatrix.cli.options import Parser


def add_guest(parser: Parser, *, takes_stdin: bool = True) -> None:
    """Add the options for the guest. takes_stdin: with those for the command's stdin."""
    group = parser.add_argument_group("the guest")
    if takes_stdin:
        add_stdin(group)
    group.add_argument("--accel", choices=["auto", "kvm", "tcg"], help="default: auto")
    start = group.add_mutually_exclusive_group()
    start.add_argument(
        "--cold",
        action="store_true",
        help="boot every guest; by default one that is like an earlier one is restored from a template",
    )
    start.add_argument(
        "--warm",
        action="store_true",
        help="restore every guest from a template; where there is none, the cell is unprepared",
    )
    group.add_argument("--machine", metavar="M", help="QEMU's -machine, instead of the architecture's")
    group.add_argument(
        "--qemu",
        action="append",
        default=[],
        metavar="ARG",
        help="more words for QEMU's command line, which are not checked: '-device virtio-rng-pci'",
    )
    group.add_argument(
        "--on-timeout",
        choices=["end", "dump"],
        help="dump: keep the memory of a guest whose command outlives its limit, as artifacts/vmcore in the "
        "cell's folder; default: end",
    )
    _add_what_it_sees(group)


def _add_what_it_sees(group: argparse._ArgumentGroup) -> None:
    """Add the options for the files, the environment and the user of COMMAND."""
    group.add_argument(
        "--layer", action="append", default=[], metavar="DIR", help="a folder, laid over the guest's root"
    )
    group.add_argument(
        "--bind",
        action="append",
        default=[],
        metavar="HOST:GUEST[:ro]",
        help="a folder or file of the host at a path in the guest, which may write to it",
    )
    group.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="K[=V]",
        help="a variable for the command; without =V, its value is taken from this environment, and is not "
        "recorded",
    )
    group.add_argument(
        "--user", metavar="USER[:GROUP]", help="run COMMAND as this user of the guest, a name or a number"
    )
    group.add_argument(
        "--no-work-tree", action="store_true", help="do not show the current folder to the guest"
    )


def add_stdin(group: argparse._ArgumentGroup) -> None:
    """Add --stdin and --no-stdin, which exclude each other."""
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--stdin",
        metavar="FILE",
        help="COMMAND's stdin, the same bytes in every cell (-: quizmatrix's stdin); by default a single "
        "cell reads quizmatrix's stdin, as over ssh, and several cells read /dev/null",
    )
    which.add_argument(
        "--no-stdin",
        dest="stdin",
        action="store_const",
        const=os.devnull,
        help="COMMAND's stdin is /dev/null, and quizmatrix's is not read",
    )
