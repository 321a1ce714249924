"""The command `quizmatrix kernel` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.options import Commands, Parser, add_command, add_config, number
from quizmatrix.core.errors import UsageError


def add_parser(commands: Commands[Parser]) -> None:
    """Add `kernel build|list|show|debug-info|remove`."""
    parser = add_command(commands, "kernel", list_kernels, help="build, list and remove kernels")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    make = add_command(
        actions,
        "build",
        build,
        uses_cache=True,
        help="build kernels from source",
        description="SPEC is a series (6.12: its newest release), an exact version, `newest`, a candidate "
        "(6.13-rc2), next-DATE, master, or names its source: debian-source:6.12, kernel.org:6.12.57, "
        "git:REPOSITORY#REF, path:DIR, tarball:FILE. Others are there already: package:FILE or a folder "
        "of .deb or .rpm files, files:FOLDER, installed.",
    )
    make.add_argument(
        "spec", nargs="+", metavar="SPEC", help="6.12, newest, kernel.org:6.12.57, path:../linux"
    )
    make.add_argument("-a", "--arches", action="append", default=[], help="default: this host's")
    make.add_argument(
        "--source",
        metavar="S",
        help="the source of versions that name none (default: debian-source; kernel.org for candidates, "
        "next-DATE and master)",
    )
    make.add_argument(
        "--variant",
        metavar="V",
        help="a named addition to the configuration: debug, kasan, lockdep, ...",
    )
    make.add_argument("--config", metavar="FILE", help="a configuration fragment of yours")
    make.add_argument("--clang", action="store_true", help="compile with clang")
    make.add_argument("-j", "--jobs", metavar="N", help="processes at a time (default: one for each CPU)")
    add_config(make)
    make.add_argument("--refresh", action="store_true", help="ask the sources again for what is newest")
    _add_list(actions)
    action = add_command(actions, "show", show, help="a kernel's files, and the origin of its configuration")
    action.add_argument("key", metavar="KEY", help="as `kernel list` shows it, or its beginning")
    _add_debug_info(actions)
    action = add_command(actions, "remove", remove, help="remove kernels from the cache")
    action.add_argument("key", nargs="*", metavar="KEY", help="as `kernel list` shows it, or its beginning")
    action.add_argument("--unused", action="store_true", help="kernels that no SPEC names any more")


def _add_debug_info(actions: Commands[Parser]) -> None:
    action = add_command(
        actions,
        "debug-info",
        obtain_debug_info,
        uses_cache=True,
        help="fetch the debug information of Debian's kernels",
        description="Fetch Debian's debug information of ready-made kernels in the cache (400 to 900 MB, "
        "of which 200 to 700 MB stay). Findings then name the source's lines, gdb.sh finds symbols, and "
        "crash.txt is written where a guest's memory is kept. A kernel that is built here has it with the "
        "variant `debug`.",
    )
    action.add_argument(
        "key",
        nargs="+",
        metavar="KEY",
        help="as `kernel list` shows it, or its beginning, or a cell: 6.1-s390x",
    )


def _add_list(actions: Commands[Parser]) -> None:
    action = add_command(
        actions,
        "list",
        list_kernels,
        help="the kernels in the cache, or (--available) those that can be had",
        description="List the kernels in the cache. With --available, list what can be named, and where it "
        "comes from: Debian's suites, kernel.org, this host, and kernels with a name. With SERIES (6.1), all "
        "kernels of that series; without it, the newest of each.",
    )
    action.add_argument("series", nargs="?", metavar="SERIES", help="with --available: only this one, as 6.1")
    action.add_argument("--available", action="store_true", help="what can be had, and from where")
    action.add_argument(
        "-a",
        "--arches",
        action="append",
        default=[],
        help="of ready-made kernels (default: those of the matrix `default`)",
    )
    action.add_argument("--matrix", metavar="FILE", help="also the kernels that this matrix gives a name")
    action.add_argument("--offline", action="store_true", help="ask nobody: what was known last")


def build(args: argparse.Namespace) -> int:
    """Build each kernel for each architecture."""
    from quizmatrix.build import kernels
    from quizmatrix.kernel.order import KernelOptions
    from quizmatrix.prepare.selection import words

    config = kernels.config_lines(
        args.variant, args.config, enable=args.enable, disable=args.disable, module=args.module
    )
    return kernels.build(
        args.spec,
        words("--arches", args.arches),
        KernelOptions(variant=args.variant, config=tuple(config), clang=args.clang),
        source_name=args.source,
        jobs=number("-j", args.jobs),
        refresh=args.refresh,
    )


def list_kernels(args: argparse.Namespace) -> int:
    """Print the kernels in the cache, or those that can be had."""
    if args.available:
        from quizmatrix.build import available

        available.print_list(args.series or "", args.arches, matrix=args.matrix, offline=args.offline)
        return 0
    if args.series or args.arches or args.matrix or args.offline:
        raise UsageError("only --available takes a series and options", next_step="Add --available.")
    from quizmatrix.build import kernels

    kernels.print_list()
    return 0


def show(args: argparse.Namespace) -> int:
    """Print what a kernel is, and where each requested configuration symbol came from."""
    from quizmatrix.build import kernels

    kernels.show(args.key)
    return 0


def obtain_debug_info(args: argparse.Namespace) -> int:
    """Fetch the debug information of Debian's kernels."""
    from quizmatrix.build import kernels

    return kernels.obtain_debug_info(args.key)


def remove(args: argparse.Namespace) -> int:
    """Remove kernels from the cache."""
    from quizmatrix.build import kernels

    kernels.remove(args.key, unused=args.unused)
    return 0
