"""The command `quizmatrix bisect` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.guestoptions import add_guest
from quizmatrix.cli.options import (
    Commands,
    Parser,
    add_command,
    add_image_and_profiles,
    add_limits,
    add_no_provide,
    add_sources,
    run_options,
)
from quizmatrix.core.errors import UsageError


def add_parser(commands: Commands[Parser]) -> None:
    """Add `bisect`."""
    parser = add_command(
        commands,
        "bisect",
        bisect,
        takes_command=True,
        uses_cache=True,
        help="find the released kernel with which a command's outcome changes",
        usage="quizmatrix bisect KERNEL KERNEL [OPTION]... -- COMMAND [ARG]...",
        description="Run COMMAND with both kernels. If the outcomes differ, find the first release between "
        "them where the outcome changes, with as many VMs at a time as there are CPUs (-j). Between two "
        "releases of one series (6.12.1 6.12.40) all its releases are searched, otherwise the newest of each "
        "series. Releases that cannot be tested are skipped. Exit status: 0 where it was found, else 125.",
    )
    parser.add_argument("a", metavar="KERNEL", help="5.10, kernel.org:6.1, git:../linux#v6.1")
    parser.add_argument("b", metavar="KERNEL", help="another kernel of the same source, or `newest`")
    group = parser.add_argument_group("which guest")
    group.add_argument("-a", "--arch", action="append", default=[], metavar="A", help="default: this host's")
    group.add_argument("--source", metavar="S", help="the source of a kernel that names none")
    add_image_and_profiles(group)
    add_no_provide(group)
    group.add_argument("-j", "--jobs", metavar="N", help="VMs at a time (default: one for each CPU)")
    add_limits(parser)
    add_sources(parser)
    add_guest(parser)


def bisect(args: argparse.Namespace) -> int:
    """Print with which release COMMAND begins to fail, or to pass. Returns status 0 if that was found."""
    from quizmatrix.bisect import bisection
    from quizmatrix.cli.signals import watch_signals
    from quizmatrix.model.arch import host_arch, load_arch
    from quizmatrix.prepare import selection

    if not args.command:
        raise UsageError(
            "there is no command to bisect with",
            next_step=f"It comes after `--`: quizmatrix bisect {args.a} {args.b} -- ./test.sh",
        )
    arches = selection.words("--arch", args.arch)
    if len(arches) > 1:
        raise UsageError(f"--arch {','.join(arches)}", cause="a bisection is of one architecture")
    arch = load_arch(arches[0]) if arches else host_arch()
    return bisection.bisect(run_options(args), (args.a, args.b), arch, args.command, watch_signals)
