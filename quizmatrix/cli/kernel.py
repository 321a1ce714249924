"""The command `quizmatrix kernel` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.options import Commands, Parser, add_command, number


def add_parser(commands: Commands[Parser]) -> None:
    """Add `kernel build|list|show|remove`."""
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
        "git:REPOSITORY#REF, path:DIR, tarball:FILE.",
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
    make.add_argument("-e", "--enable", action="append", default=[], metavar="KEY", help="CONFIG_KEY=y")
    make.add_argument("-d", "--disable", action="append", default=[], metavar="KEY", help="CONFIG_KEY=n")
    make.add_argument("-m", "--module", action="append", default=[], metavar="KEY", help="CONFIG_KEY=m")
    make.add_argument("--refresh", action="store_true", help="ask the sources again for what is newest")
    add_command(actions, "list", list_kernels, help="the kernels in the cache")
    action = add_command(actions, "show", show, help="a kernel's files, and the origin of its configuration")
    action.add_argument("key", metavar="KEY", help="as `kernel list` shows it, or its beginning")
    action = add_command(actions, "remove", remove, help="remove kernels from the cache")
    action.add_argument("key", nargs="*", metavar="KEY", help="as `kernel list` shows it, or its beginning")
    action.add_argument("--unused", action="store_true", help="kernels that no SPEC names any more")


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


def list_kernels(_: argparse.Namespace) -> int:
    """Print the kernels in the cache."""
    from quizmatrix.build import kernels

    kernels.print_list()
    return 0


def show(args: argparse.Namespace) -> int:
    """Print what a kernel is, and where each requested configuration symbol came from."""
    from quizmatrix.build import kernels

    kernels.show(args.key)
    return 0


def remove(args: argparse.Namespace) -> int:
    """Remove kernels from the cache."""
    from quizmatrix.build import kernels

    kernels.remove(args.key, unused=args.unused)
    return 0
