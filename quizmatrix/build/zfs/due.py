"""What of OpenZFS has to be compiled from the beginning for some cells, and its CPU seconds."""

from __future__ import annotations

from collections.abc import Sequence

from quizmatrix.build.zfs import build, sysroot
from quizmatrix.build.zfs.options import ZfsOptions
from quizmatrix.build.zfs.part import modules_part, userland_part
from quizmatrix.build.zfs.tree import ZfsTree
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.kernel import source
from quizmatrix.kernel.order import options_of
from quizmatrix.model.arch import load_arch
from quizmatrix.model.cells import Cell, debian_suite
from quizmatrix.prepare.compiling import Work, counted

# CPU seconds, of `make bench-zfs` (docs/speed.md): the modules of a kernel, the programs of an architecture,
# and the libraries of one that Debian does not carry.
_MODULES = 150.0
_PROGRAMS = 200.0
_LIBRARIES = 205.0


def work_of(tree: ZfsTree, options: ZfsOptions, cells: Sequence[Cell]) -> list[Work]:
    """OpenZFS for those kernels and architectures that it was never built for; nothing where it was.

    A build of which only files changed does not count: it takes seconds.
    """
    kernels: set[str] = set()
    seconds: dict[str, float] = {}
    for cell in cells:
        arch, suite = load_arch(cell.arch), debian_suite(cell.image) or None
        try:
            libraries = sysroot.sysroot_of(arch, suite)
            programs = userland_part(tree, arch, libraries, options)
            if not libraries.suite and not libraries.folder.is_dir():
                seconds[f"libraries of {arch.name}"] = _LIBRARIES
            if build.is_new(programs):
                seconds[programs.name] = _PROGRAMS
            kernel = source.find(cell.kernel_spec, arch, options_of(cell))
            is_new = (
                kernel is None
                or kernel.build_tree is None
                or build.is_new(modules_part(tree, arch, kernel, libraries, options))
            )
        except QuizmatrixError:
            continue  # the cell itself will say what is wrong
        if is_new:
            seconds[f"modules {kernel.record.key if kernel else cell.unsharded}"] = _MODULES
            kernels.add(cell.unsharded)
    what = f"OpenZFS for {counted(len(kernels))}" if kernels else "OpenZFS's programs"
    return [Work(what=what, seconds=sum(seconds.values()))] if seconds else []
