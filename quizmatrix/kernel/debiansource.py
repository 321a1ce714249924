"""The kernel source `debian-source`: kernels built here from Debian's `linux-source-*` packages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeAlias

from quizmatrix.core.errors import DamagedError, UnpreparedError
from quizmatrix.core.process import Tell
from quizmatrix.core.version import KernelVersion, Natural, leading_version, natural_key
from quizmatrix.debian import apt
from quizmatrix.kernel import build
from quizmatrix.kernel.debianpackages import released_in, suites_for, versions_in
from quizmatrix.kernel.debianversions import NEWEST, check_version, fits, is_exact
from quizmatrix.kernel.kernelsource import AvailableKernel, KernelSource
from quizmatrix.kernel.order import Order
from quizmatrix.kernel.tree import KernelTree, unpacked
from quizmatrix.model.arch import Arch
from quizmatrix.model.archive import load_archive

Found: TypeAlias = tuple[KernelVersion, apt.Package, apt.AptRoot]

# Source packages are for all architectures; this architecture's index is read.
_INDEX_ARCH = "amd64"
_NAME = re.compile(r"linux-source-\d+\.\d+")


async def fetch(wanted: str, order: Order) -> str:
    """Build the kernel `wanted`, unless the cache has it; returns its key.

    Raises UnpreparedError where the archive has no such source, or it cannot be built.
    """
    async with order.fetching:
        tree = await source_tree(wanted, order.tell, only_newest=order.is_replacing)
    return await build.build(tree, order)


async def released(_one: str, _other: str, _arch: Arch, tell: Tell) -> dict[KernelVersion, str]:
    """The kernels whose sources are in the archive's suites, by their versions."""

    async def ask(root: apt.AptRoot) -> list[KernelVersion]:
        return await versions_in(root, "linux-source-", _is_source)

    return await released_in(_INDEX_ARCH, ask, tell)


async def available(series: str, _arches: list[Arch], tell: Tell) -> list[AvailableKernel]:
    """The kernels that can be built from the archive's sources."""
    from quizmatrix.kernel import debianavailable

    return await debianavailable.sources(_INDEX_ARCH, _is_source, series, tell)


def _is_source(package: str) -> bool:
    return _NAME.fullmatch(package) is not None


async def source_tree(wanted: str, tell: Tell, *, only_newest: bool = False) -> KernelTree:
    """The unpacked source of the kernel `wanted`. Raises UnpreparedError where the archive has none.

    only_newest: do not try an older version where the newest one cannot be downloaded.
    """
    found = await _resolve(wanted, tell)
    return await apt.first_available(
        found, lambda one: one[1], lambda one: _unpack(one, tell), tell, only_newest=only_newest
    )


async def _unpack(found: Found, tell: Tell) -> KernelTree:
    version, package, root = found

    async def fetch_archive(scratch: Path) -> Path:
        tell(f"fetching {package.name} ({package.size // 1_000_000} MB)")
        await apt.unpack(await root.download([package], scratch), scratch / "unpacked")
        archives = list(scratch.glob("unpacked/usr/src/linux-source-*.tar.xz"))
        if len(archives) != 1:
            raise DamagedError(f"Debian's package {package.name} has an unknown layout")
        return archives[0]

    path = await unpacked(f"{package.name}-{package.version}-{package.sha256[:12]}", fetch_archive, tell)
    return KernelTree(
        path=path, version=version, key=package.sha256, origin=f"{package.name} {package.version}"
    )


async def _resolve(wanted: str, tell: Tell) -> list[Found]:
    """The wanted source packages in all suites, the newest first."""
    suites = suites_for(wanted, load_archive(), _INDEX_ARCH)
    found = await apt.ask_suites(
        suites,
        _INDEX_ARCH,
        tell,
        lambda root: _newest_in(root, wanted),
        is_first_enough=is_exact(wanted),
    )
    if found:
        return sorted(found, key=_age, reverse=True)
    raise UnpreparedError(
        f"Debian's archive has no source of the kernel {wanted}",
        cause=f"asked: {', '.join(suites)}",
        next_step=f"A series (6.1), an exact version that a suite has, `newest`; or kernel.org:{wanted}.",
    )


async def _newest_in(root: apt.AptRoot, wanted: str) -> Found | None:
    names = await root.names("linux-source-")
    if wanted != NEWEST:
        names = [name for name in names if name == f"linux-source-{KernelVersion(wanted).series}"]
    found = [
        (version, package, root)
        for package in (await root.show(*names) if names else [])
        if (version := leading_version(package.version)) is not None and fits(version, wanted)
    ]
    return max(found, key=_age, default=None)


def _age(found: Found) -> tuple[KernelVersion, Natural]:
    version, package, _root = found
    return version, natural_key(package.version)


SOURCE = KernelSource(
    check=check_version, recipe=build.recipe, fetch=fetch, released=released, available=available
)
