"""`quizmatrix kernel list --available`: prints the kernels that can be had, and the words of completion."""

from __future__ import annotations

import time

import anyio

from quizmatrix.core.errors import UsageError
from quizmatrix.core.text import clean_line
from quizmatrix.core.version import series_of
from quizmatrix.kernel import artifact, available
from quizmatrix.kernel.kernelsource import AvailableKernel
from quizmatrix.model import named
from quizmatrix.model.arch import arch_names, load_arch
from quizmatrix.model.cells import expand
from quizmatrix.model.matrix import find_matrix, load_matrix
from quizmatrix.model.named import NamedKernels
from quizmatrix.prepare.selection import DEFAULT_MATRIX, words
from quizmatrix.report.progress import tell

_BUILT = "debian-source:"


def print_list(series: str, arches: list[str], *, matrix: str | None, offline: bool) -> None:
    """Print the kernels that can be had. series: only of this one, unless it is empty.

    arches: of ready-made kernels; by default those of the default matrix. matrix: one with named kernels.
    offline: ask no source, and print what was known last.
    """
    from tabulate import tabulate

    if series and not (series := series_of(asked := series)):
        raise UsageError(f"{asked} is no series of kernels", next_step="A series is written like 6.1.")
    default = load_matrix(find_matrix(DEFAULT_MATRIX)).arches
    chosen = [load_arch(name) for name in words("--arches", arches) or default]
    names = list(dict.fromkeys(arch.name for arch in chosen))
    kernels = named.own_kernels() if matrix is None else load_matrix(find_matrix(matrix)).kernel
    if not offline:
        anyio.run(available.ask, series, chosen, _tell_failure)
    found = available.known(series, names)
    if not series:
        found += _named(kernels, names, matrix)
    rows = [[clean_line(word) for word in _row(one)] for one in found]
    if rows:
        heads = ["kernel", "means", "architectures", "from", "kind"]
        print(tabulate(rows, headers=heads, disable_numparse=True))
    else:
        print("No such kernel is known.")
    _explain(names, offline=offline)


def _tell_failure(text: str) -> None:
    """Print why a source is missing. That one is asked is no news: it takes seconds."""
    if not text.startswith("asking "):
        tell(text)


def _row(one: AvailableKernel) -> list[str]:
    how = "built here" if one.is_built else "ready-made"
    return [one.kernel, one.version, ", ".join(one.arches) or "all", one.origin, how]


def _named(kernels: NamedKernels, arches: list[str], matrix: str | None) -> list[AvailableKernel]:
    """The kernels with a name that have packages for one of the architectures."""
    own = named.own_kernels()
    return [
        AvailableKernel(
            kernel=name,
            version="its packages",
            arches=tuple(sorted(lists)),
            origin=str(named.own_file()) if lists == own.get(name) else str(matrix),
        )
        for name, lists in kernels.items()
        if not lists.keys().isdisjoint(arches)
    ]


def _explain(arches: list[str], *, offline: bool) -> None:
    """Say what the list does not have."""
    when = available.asked_last()
    if offline:
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(when))
        tell(f"this was known on {day}" if when else "the sources were never asked: leave out --offline")
    others = [name for name in arch_names() if name not in arches]
    if others:
        print(f"\nReady-made kernels of {', '.join(arches)}. For others: -a {','.join(others)}")


def completions(of: str) -> list[str]:
    """The words for a shell's completion, from what is known without a network.

    of: `kernels`, `cells`, or `stored`: names of kernels in the cache.
    """
    if of == "stored":
        return [*artifact.KERNELS.stored(), *sorted(f"{spec}-{arch}" for spec, arch in _references())]
    default = load_matrix(find_matrix(DEFAULT_MATRIX))
    found: dict[str, None] = {}

    def add(kernel: str, arch: str) -> None:
        found[kernel if of == "kernels" else f"{kernel}-{arch}"] = None

    for cell in expand(default, DEFAULT_MATRIX):
        add(cell.kernel, cell.arch)
    for name, lists in default.kernel.items():
        for arch in lists:
            add(name, arch)
    for one in available.known():
        for arch in one.arches or arch_names():
            add(one.kernel, arch)
            if one.kernel.startswith(_BUILT):
                # What no suite has ready-made is built, without being named so.
                add(one.kernel.removeprefix(_BUILT), arch)
    for spec, arch in _references():
        add(spec, arch)
    return sorted(found)


def _references() -> list[tuple[str, str]]:
    """The kernels in the cache as they may be asked for, with their architectures.

    Those with an own configuration are left out: no cell's name says that. A variant stands behind the
    architecture in a cell's name.
    """
    return [
        (spec.removeprefix("debian:"), reference.arch)
        for reference in artifact.references()
        if " " not in (spec := named.shown(reference.spec)) and "+" not in spec
        if artifact.KERNELS.path(reference.key).is_dir()
    ]
