"""The command `quizmatrix zfs` and its parser."""

from __future__ import annotations

import argparse
import sys

from quizmatrix.cli.options import (
    Commands,
    Parser,
    add_command,
    add_selection,
    add_sources,
    run_options,
)
from quizmatrix.core.errors import UsageError


def add_parser(commands: Commands[Parser]) -> None:
    """Add `zfs build|configure|make|install|list`."""
    parser = add_command(commands, "zfs", build, help="build OpenZFS for every cell")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    make = add_command(
        actions,
        "build",
        build,
        uses_cache=True,
        help="build what is out of date, and install it for the cells' guests",
        description="Build the OpenZFS work tree in the current folder for every cell of MATRIX, out of "
        "tree. Programs are built once per architecture, modules once per kernel.",
    )
    add_selection(make, names_sources=False)
    _add_build_options(make)
    add_sources(make)
    for step, text in (
        ("configure", "run ./configure for one cell, where necessary"),
        ("make", "compile for one cell"),
        ("install", "install what was compiled into the cell's build layer"),
    ):
        single = add_command(actions, step, take_step, uses_cache=True, help=text)
        single.add_argument(
            "--cell", dest="only", action="append", required=True, metavar="CELL", help="6.1-s390x"
        )
        single.add_argument("matrix", nargs="?", metavar="MATRIX", help="the matrix that has the cell")
        single.add_argument("--image", metavar="I", help="the base image for which it is built")
        _add_build_options(single)
        add_sources(single)
        single.set_defaults(step=step)
    add_command(actions, "list", list_builds, help="what was built, for which kernels and from which trees")


def _add_build_options(parser: Parser) -> None:
    group = parser.add_argument_group("how OpenZFS is built")
    group.add_argument(
        "--source",
        dest="source_tree",
        metavar="DIR",
        help="the work tree (default: the current folder, or one above it)",
    )
    group.add_argument("--debug", action="store_true", help="with assertions and debug symbols")
    group.add_argument(
        "--coverage",
        action="store_true",
        help="the modules count which of their lines run; for kernels of the variants gcov and gcov_modules",
    )
    group.add_argument(
        "--experimental", action="store_true", help="also for kernels newer than META's Linux-Maximum"
    )
    group.add_argument(
        "--configure", action="append", default=[], metavar="OPT", help="a further argument of ./configure"
    )
    group.add_argument("-j", "--jobs", metavar="N", help="processes at a time (default: one for each CPU)")
    group.add_argument("-q", "--quiet", action="store_true", help="print only the table")


def build(args: argparse.Namespace) -> int:
    """Configure, compile and install what is out of date. Returns exit status 125 where a build fails."""
    from quizmatrix.build.zfs.build import STEPS

    return _run(args, STEPS)


def take_step(args: argparse.Namespace) -> int:
    """Do a single step for one cell."""
    return _run(args, (args.step,))


def list_builds(_: argparse.Namespace) -> int:
    """Print each build of OpenZFS with its kernel and its work tree."""
    from quizmatrix.build.zfs import listing

    listing.print_list()
    return 0


def _run(args: argparse.Namespace, steps: tuple[str, ...]) -> int:
    from quizmatrix.build import output
    from quizmatrix.build.zfs import update
    from quizmatrix.build.zfs.build import CONFIGURE, STEPS
    from quizmatrix.build.zfs.options import ZfsOptions, recall, remember
    from quizmatrix.build.zfs.tree import find_tree
    from quizmatrix.core import process
    from quizmatrix.model.outcome import EXIT_NO_VERDICT, EXIT_OK
    from quizmatrix.prepare.selection import selected_cells

    options = run_options(args)
    tree = find_tree(args.source_tree)
    cells = selected_cells(options)
    if steps != STEPS and len(cells) != 1:
        raise UsageError("a single step is for a single cell", next_step="--cell 6.1-x86_64")
    if CONFIGURE in steps:
        zfs_options = ZfsOptions(
            debug=args.debug,
            experimental=args.experimental,
            coverage=args.coverage,
            configure=tuple(args.configure),
        )
        remember(tree, zfs_options)
    else:
        zfs_options = recall(tree)
    cpus = options.conduct.jobs or process.usable_cpus()
    results = update.build_cells(options, tree, zfs_options, cells, steps, cpus=cpus)
    print(update.table(results))
    errors = output.explain((result.cell, result.error) for result in results)
    if errors:
        print(f"\n{errors}", file=sys.stderr)
    return EXIT_NO_VERDICT if errors else EXIT_OK
