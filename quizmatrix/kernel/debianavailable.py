"""What Debian's suites have now: ready-made kernels, and the sources of kernels that are built here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeAlias

import anyio
import msgspec

from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import NotFetchedError
from quizmatrix.core.process import Tell
from quizmatrix.core.version import KernelVersion
from quizmatrix.debian import apt
from quizmatrix.kernel.debianpackages import image_names, versions_in
from quizmatrix.kernel.debianversions import NEWEST
from quizmatrix.kernel.kernelsource import AvailableKernel
from quizmatrix.model.arch import Arch
from quizmatrix.model.archive import load_archive

# How many indices are fetched at a time: each is unpacked and parsed by one CPU.
_AT_A_TIME = 4


# Whether a package's name is meant.
_Fits: TypeAlias = Callable[[str], object]


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel in a suite. is_newest: whether `newest` may mean it."""

    version: KernelVersion
    arch: str
    suite: str
    is_newest: bool


async def ready_made(series: str, arches: list[Arch], tell: Tell) -> list[AvailableKernel]:
    """The ready-made kernels for these architectures; all of one series, or of each series the newest."""
    asked = [
        (arch.name, debian.arch, image_names(debian.flavour).fullmatch)
        for arch in arches
        if (debian := arch.facts.debian) is not None
    ]
    return _listed("debian", await _ask("linux-image-", asked, series, tell), series, is_built=False)


async def sources(index: str, fits: _Fits, series: str, tell: Tell) -> list[AvailableKernel]:
    """The kernels that are built here from Debian's sources, for all architectures.

    index: Debian's name of the architecture whose index is read. fits: whether a package is such a source.
    """
    found = await _ask("linux-source-", [("", index, fits)], series, tell)
    return _listed("debian-source", found, series, is_built=True)


async def _ask(prefix: str, asked: Sequence[tuple[str, str, _Fits]], series: str, tell: Tell) -> list[_Found]:
    """The kernels in all suites that may have the series, or any.

    asked: the architecture, Debian's name of it, and which of its packages are meant.
    """
    archive = load_archive()
    limiter = anyio.CapacityLimiter(_AT_A_TIME)
    found: list[_Found] = []

    async def ask(suite: str, arch: str, debian: str, fits: _Fits) -> None:
        root = apt.AptRoot(archive, suite, debian)
        async with limiter:
            try:
                await root.update()
                versions = await versions_in(root, prefix, lambda name: bool(fits(name)))
            except NotFetchedError as error:
                tell(f"{error}; going on without it")
                return
        is_newest = archive.suite[suite].newest
        found.extend(
            _Found(version=version, arch=arch, suite=suite, is_newest=is_newest)
            for version in versions
            if series in ("", version.series)
        )

    async with task_group() as group:
        for arch, debian, fits in asked:
            suites = archive.suites_of(series, debian) if series else list(archive.suite)
            for suite in suites:
                if debian in archive.suite[suite].arches:
                    group.start_soon(ask, suite, arch, debian, fits)
    return found


def _listed(source: str, found: list[_Found], series: str, *, is_built: bool) -> list[AvailableKernel]:
    """The kernels by what is typed for them: a series means its newest kernel on each architecture."""
    bare = "" if source == "debian" else f"{source}:"
    arches: dict[tuple[KernelVersion, str], set[str]] = defaultdict(set)
    suites: dict[tuple[KernelVersion, str], dict[str, None]] = defaultdict(dict)
    for arch in {one.arch for one in found}:
        own = [one for one in found if one.arch == arch]
        newest = {one.version.series: one.version for one in sorted(own, key=lambda one: one.version)}
        last = max((one.version for one in own if one.is_newest), default=None)
        for one in own:
            names = [f"{source}:{one.version.text}"]
            if one.version == newest[one.version.series]:
                names[0] = f"{bare}{one.version.series}"
            elif not series:
                names = []
            if one.version == last and one.is_newest:
                names.append(f"{bare}{NEWEST}")
            for name in names:
                arches[one.version, name].add(arch)
                suites[one.version, name][one.suite] = None
    return [
        AvailableKernel(
            kernel=name,
            version=version.text,
            arches=() if is_built else tuple(sorted(arches[version, name])),
            origin=f"Debian's {', '.join(suites[version, name])}",
            is_built=is_built,
        )
        for version, name in sorted(arches, key=lambda one: (one[0], one[1]), reverse=True)
    ]
