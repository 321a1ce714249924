"""The words of the commands that build: kernels, images, OpenZFS, modules."""

from __future__ import annotations

from quizmatrix.cli.options import NO_LIMITS, Commands, Parser, add_command, add_selection, add_sources


def add_kernel(commands: Commands[Parser]) -> None:
    parser = add_command(commands, "kernel", "kernel:list_kernels", help="build, list and remove kernels")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    make = add_command(
        actions,
        "build",
        "kernel:build",
        help="build kernels from source",
        description="SPEC is a series (6.12: its newest release), an exact version, `newest`, a candidate "
        "(6.13-rc2), next-DATE, master, or names its source: debian-source:6.12, kernel.org:6.12.57, "
        "git:REPOSITORY#REF, path:DIR, tarball:FILE.",
    )
    make.add_argument("spec", nargs="+", metavar="SPEC")
    make.add_argument("-a", "--arches", action="append", default=[], help="default: this host's")
    make.add_argument(
        "--source",
        metavar="S",
        help="where versions that name none come from (default: debian-source; kernel.org for candidates, "
        "next-DATE and master)",
    )
    make.add_argument(
        "--variant",
        metavar="V",
        help="a fragment of kernel-configs/variant: debug, kasan, lockdep, ... (README lists them)",
    )
    make.add_argument("--config", metavar="FILE", help="a fragment of your own")
    make.add_argument("--clang", action="store_true", help="compile with clang")
    make.add_argument("-j", "--jobs", metavar="N", help="processes at a time (default: one for each CPU)")
    make.add_argument("-e", "--enable", action="append", default=[], metavar="KEY", help="CONFIG_KEY=y")
    make.add_argument("-d", "--disable", action="append", default=[], metavar="KEY", help="CONFIG_KEY=n")
    make.add_argument("-m", "--module", action="append", default=[], metavar="KEY", help="CONFIG_KEY=m")
    make.add_argument("--refresh", action="store_true", help="ask the sources again for what is newest")
    add_command(actions, "list", "kernel:list_kernels", help="the kernels in the cache")
    show = add_command(
        actions, "show", "kernel:show", help="what a kernel is, and who asked for its configuration"
    )
    remove = add_command(actions, "remove", "kernel:remove", help="remove kernels from the cache")
    show.add_argument("key", metavar="KEY", help="as `kernel list` has it, or the beginning")
    remove.add_argument("key", nargs="*", metavar="KEY", help="as `kernel list` has it, or the beginning")
    remove.add_argument("--unused", action="store_true", help="those that nothing asks for any more")


def add_image(commands: Commands[Parser]) -> None:
    parser = add_command(commands, "image", "image:list_images", help="build, list and remove Debian images")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    make = add_command(
        actions,
        "build",
        "image:build",
        help="build a Debian image, and use it from now on",
        description="An image of another architecture is configured inside a guest of that architecture, "
        "where this host cannot run its programs.",
    )
    make.add_argument("-a", "--arch", dest="arches", action="append", default=[], help="default: this host's")
    make.add_argument("--suite", metavar="S", help="Debian's suite: bookworm, trixie, sid")
    make.add_argument(
        "--include", action="append", default=[], metavar="PKG", help="packages, and sets like zfs-tests"
    )
    make.add_argument("--kernel", metavar="K", help="the kernel of a guest that configures it")
    add_command(actions, "list", "image:list_images", help="the Debian images in the cache")
    remove = add_command(actions, "remove", "image:remove", help="remove images from the cache")
    remove.add_argument("key", nargs="+", metavar="IMAGE", help="as `image list` has it")


def add_zfs(commands: Commands[Parser]) -> None:
    parser = add_command(commands, "zfs", "zfs:build", help="build OpenZFS for every cell")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    make = add_command(
        actions,
        "build",
        "zfs:build",
        help="build what is out of date, and have the cells' guests get it",
        description="In an OpenZFS work tree: build it for every cell of MATRIX, out of the tree. Programs "
        "are built once for an architecture, modules once for a kernel.",
    )
    add_selection(make, names_sources=False)
    _add_zfs_options(make)
    add_sources(make)
    for step, text in (
        ("configure", "run ./configure for one cell, where that is due"),
        ("make", "compile for one cell"),
        ("install", "install what was compiled into the cell's build layer"),
    ):
        single = add_command(actions, step, "zfs:step", help=text)
        single.add_argument(
            "--cell", dest="only", action="append", required=True, metavar="CELL", help="6.1-s390x"
        )
        single.add_argument("matrix", nargs="?", metavar="MATRIX", help="the matrix that has the cell")
        single.add_argument("--image", metavar="I", help="the base image that it is built for")
        _add_zfs_options(single)
        add_sources(single)
        single.set_defaults(step=step, skip=[], kernels=[], arches=[], profiles=[], source=None)


def add_module(commands: Commands[Parser]) -> None:
    parser = add_command(
        commands, "module", "module:list_modules", help="build a kernel module of yours for every cell"
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    make = add_command(
        actions,
        "build",
        "module:build",
        help="build what is out of date, and have the cells' guests get it",
        usage="quizmatrix module build DIR... [MATRIX] [OPTION]...",
        description="Build the kernel module in DIR, whose Kbuild or Makefile says `obj-m := NAME.o`, for "
        "every kernel of MATRIX, out of DIR, which is never written to. `modprobe` finds it then in every "
        "guest of these kernels: those that are built here, as ready-made ones have no build tree. Modules "
        "of several DIR may use each other's symbols. The last word is MATRIX where it is no folder, or the "
        "name of a matrix that ships.",
        epilog="example:\n"
        "  quizmatrix module build ./hello endian --only '6.1-*'\n"
        "  quizmatrix run endian --only '6.1-*' -- 'modprobe hello && dmesg | tail'",
    )
    make.add_argument("folder", nargs="+", metavar="DIR", help="the module's source")
    add_selection(make)
    group = make.add_argument_group("how it is built")
    group.add_argument(
        "--make",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="for make: CONFIG_HELLO=m, KCFLAGS=-g",
    )
    group.add_argument("-j", "--jobs", metavar="N", help="processes at a time (default: one for each CPU)")
    group.add_argument("-q", "--quiet", action="store_true", help="print only the table")
    add_sources(make)
    make.set_defaults(**NO_LIMITS)
    add_command(actions, "list", "module:list_modules", help="the modules that guests get")
    remove = add_command(actions, "remove", "module:remove", help="have no guest get a module any more")
    remove.add_argument("module", nargs="+", metavar="DIR|NAME", help="as `module list` has it")


def _add_zfs_options(parser: Parser) -> None:
    group = parser.add_argument_group("how OpenZFS is built")
    group.add_argument(
        "--source",
        dest="source_tree",
        metavar="DIR",
        help="the work tree (default: the current folder, or one above it)",
    )
    group.add_argument("--debug", action="store_true", help="with its assertions, and symbols")
    group.add_argument(
        "--experimental", action="store_true", help="for kernels too that are newer than its META knows"
    )
    group.add_argument(
        "--configure", action="append", default=[], metavar="OPT", help="a further argument of ./configure"
    )
    group.add_argument("-j", "--jobs", metavar="N", help="processes at a time (default: one for each CPU)")
    group.add_argument("-q", "--quiet", action="store_true", help="print only the table")
    parser.set_defaults(**NO_LIMITS)
