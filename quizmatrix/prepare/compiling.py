"""Says what has to be compiled before a command can begin, and about how long that takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from quizmatrix.core.errors import DamagedError, QuizmatrixError
from quizmatrix.image import small
from quizmatrix.kernel import source
from quizmatrix.kernel.order import KernelOptions, options_of
from quizmatrix.model.arch import load_arch
from quizmatrix.model.archive import is_carried
from quizmatrix.model.cells import Cell

# CPU seconds for a kernel that is built here without a compiler cache, of `make bench-build` (docs/speed.md).
_KERNEL = 330.0
# The same for a busybox.
_BUSYBOX = 30.0


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Something to compile: what it is, for a person, and its CPU seconds."""

    what: str
    seconds: float


def for_guests(cells: Sequence[Cell], *, offline: bool) -> list[Work]:
    """What has to be compiled before the cells can boot. offline: nothing may be fetched."""
    work = kernels(cells, offline=offline)
    arches = [load_arch(name) for name in dict.fromkeys(cell.arch for cell in cells)]
    lacking = [arch.name for arch in arches if not (offline or is_carried(arch) or small.is_stored(arch))]
    if lacking:
        work.append(Work(what=f"busybox for {', '.join(lacking)}", seconds=len(lacking) * _BUSYBOX))
    return work


def kernels(cells: Iterable[Cell], *, needs_tree: bool = False, offline: bool = False) -> list[Work]:
    """The kernels of the cells that have to be compiled from the beginning.

    needs_tree: modules are to be built against them. offline: nothing may be fetched.
    """
    wanted = {(cell.kernel_spec, cell.arch, options_of(cell)) for cell in cells}
    count = sum(_is_due(*one, needs_tree=needs_tree, offline=offline) for one in wanted)
    return [Work(what=counted(count), seconds=count * _KERNEL)] if count else []


def counted(kernels: int) -> str:
    """`a kernel`, `4 kernels`."""
    return f"{kernels} kernels" if kernels > 1 else "a kernel"


def _is_due(text: str, arch_name: str, options: KernelOptions, *, needs_tree: bool, offline: bool) -> bool:
    arch = load_arch(arch_name)
    try:
        spec = source.parse_spec(text)
        kind = source.source_named(spec.source)
        is_local = kind.is_local(spec.wanted)
        if not kind.is_built or (offline and not is_local):
            return False
        if is_local and not needs_tree:
            # Of a tree that was built before, make(1) compiles only what changed.
            return not source.was_built(text, arch, options)
        kernel = source.find(text, arch, options)
        if kernel is None:
            return not (is_local and source.was_built(text, arch, options))
        return needs_tree and kernel.build_tree is None
    except DamagedError:
        return True
    except QuizmatrixError:
        return False  # the cell itself will say what is wrong


def sentence(work: Iterable[Work], cpus: int) -> str | None:
    """`to compile first: 4 kernels (about 11 min on 2 CPUs)`; None where there is nothing to compile.

    cpus: how many compilers run at a time.
    """
    words: list[str] = []
    for one in work:
        place = f" on {cpus} CPU{'s' if cpus > 1 else ''}" if not words else ""
        words.append(f"{one.what} (about {_rounded(one.seconds / cpus)}{place})")
    return f"to compile first: {', '.join(words)}" if words else None


def _rounded(seconds: float) -> str:
    """A duration as vague as an estimate is: `40 s`, `12 min`, `1 h 20 min`."""
    if seconds < 90:
        return f"{max(10, math.ceil(seconds / 10) * 10)} s"
    minutes = math.ceil(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(math.ceil(minutes / 10) * 10, 60)
    return f"{hours} h" + (f" {rest} min" if rest else "")
