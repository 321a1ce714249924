"""The command `quizmatrix module` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.options import Commands, Parser, add_command, add_selection, add_sources, run_options


def add_parser(commands: Commands[Parser]) -> None:
    """Add `module build|list|remove`."""
    parser = add_command(
        commands, "module", list_modules, help="build a kernel module of yours for every cell"
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    make = add_command(
        actions,
        "build",
        build,
        uses_cache=True,
        late="matrix",
        help="build what is out of date, and install it for the cells' guests",
        usage="quizmatrix module build DIR|FILE.deb|apt:NAME... [MATRIX] [OPTION]...",
        description="Build the kernel module in DIR, which has a dkms.conf, or whose Kbuild or Makefile says "
        "`obj-m := NAME.o`, for every kernel of MATRIX. DIR is never written to. Afterwards `modprobe` finds "
        "the module in all guests of these kernels. They are the kernels that `run` takes; for Debian's own, "
        "their headers and the compiler of their suite are fetched. Modules of several DIRs may use each "
        "other's symbols. The last word is MATRIX if it is no folder, or is the name of a matrix that ships.",
        epilog="example:\n"
        "  quizmatrix module build ./hello endian --only '6.1-*'\n"
        "  quizmatrix run endian --only '6.1-*' -- 'modprobe hello && dmesg | tail'",
    )
    make.add_argument(
        "folder",
        nargs="+",
        metavar="DIR",
        help="the module's source, or Debian's package of it: FILE.deb, apt:NAME-dkms, apt:NAME-dkms/SUITE",
    )
    add_selection(make)
    group = make.add_argument_group("how it is built")
    group.add_argument(
        "--make",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="for make: CONFIG_HELLO=m, KCFLAGS=-g",
    )
    group.add_argument(
        "--no-sandbox",
        action="store_true",
        help="let a dkms.conf and what it starts do all that you may do",
    )
    group.add_argument("-j", "--jobs", metavar="N", help="processes at a time (default: one for each CPU)")
    group.add_argument("-q", "--quiet", action="store_true", help="print only the table")
    add_sources(make)
    add_command(actions, "list", list_modules, help="the modules that guests get")
    action = add_command(actions, "remove", remove, help="remove a module from all guests")
    action.add_argument("module", nargs="+", metavar="DIR|NAME", help="as `module list` shows it")


def build(args: argparse.Namespace) -> int:
    """Build modules for every cell. Returns exit status 125 where one cannot be built."""
    from quizmatrix.build.module import update
    from quizmatrix.build.module.build import ModuleOptions
    from quizmatrix.model.options import with_values

    folders, matrix = _folders_and_matrix(args.folder, args.matrix)
    options = with_values(run_options(args), {"matrix": matrix})
    module_options = ModuleOptions(make=tuple(args.make), is_sandboxed=not args.no_sandbox)
    return update.build(folders, module_options, options)


def _folders_and_matrix(folders: list[str], matrix: str | None) -> tuple[list[str], str | None]:
    """The folders of modules, and the MATRIX after them.

    matrix: a word after an option, which the parser took for MATRIX; it may also be a folder.
    """
    from pathlib import Path

    from quizmatrix.build.module.package import is_package
    from quizmatrix.model.matrix import shipped_matrices

    words = [*folders, *([matrix] if matrix is not None else [])]
    last = words[-1]
    is_source = Path(last).is_dir() or is_package(last)
    if len(words) > 1 and (last in shipped_matrices() or not is_source):
        return words[:-1], words[-1]
    return words, None


def list_modules(_: argparse.Namespace) -> int:
    """Print all built modules, each with its kernel and the folder of its source."""
    from quizmatrix.build.module import update

    update.print_list()
    return 0


def remove(args: argparse.Namespace) -> int:
    """Remove modules from the guests of all kernels, and all that was built of them."""
    from quizmatrix.build.module import update

    update.remove(args.module)
    return 0
