"""Fetches Debian's ready-made kernel packages, for the kernel source `debian`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from quizmatrix.core import paths
from quizmatrix.core.errors import DamagedError, UnpreparedError
from quizmatrix.core.process import Tell
from quizmatrix.core.store import key_of
from quizmatrix.core.version import KernelVersion, leading_version, natural_key
from quizmatrix.debian import apt
from quizmatrix.kernel import artifact, bootimage, modules
from quizmatrix.kernel.debianversions import NEWEST, RECIPE, fits, is_exact
from quizmatrix.kernel.order import DEFAULT, KernelOptions, Order
from quizmatrix.model.arch import Arch
from quizmatrix.model.archive import Archive, has_kernels_for, load_archive


class DebianKernel(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel in one suite. release: what `uname -r` will print. image: its main package."""

    root: apt.AptRoot
    release: str
    version: KernelVersion
    image: apt.Package

    async def packages(self) -> list[apt.Package]:
        """All packages of the kernel. Newer kernels are split into several, tied by exact versions."""
        exact = re.findall(r"(linux-[\w.+~-]+) \(= [^)]*\)", self.image.depends)
        return [self.image, *(await self.root.show(*exact) if exact else [])]


async def fetch(wanted: str, order: Order) -> str:
    """Fetch the kernel `wanted` (a series, an exact version, `newest`) to the cache; returns its key.

    Of a series, the newest kernel that can be downloaded is taken. Raises UnpreparedError where the archive
    has no such kernel or does not deliver it, or where the options need a kernel that is built here.
    """
    arch, tell = order.arch, order.tell
    debian = arch.facts.debian
    flavours = {DEFAULT: debian.flavour} if debian else {}
    for variant, flavour in debian.variants.items() if debian else ():
        flavours[KernelOptions(variant=variant)] = flavour
    if debian is not None and order.options not in flavours:
        raise UnpreparedError(
            f"the kernel {wanted} with {order.options.variant or 'another configuration'} has to be built",
            cause="the source `debian` has its kernels ready-made",
            next_step=f"Name one that is built: debian-source:{wanted}",
        )
    if debian is None or not has_kernels_for(debian.arch):
        raise UnpreparedError(
            f"Debian's archive does not carry {arch.name}",
            next_step=f"Name a kernel that is built: debian-source:{wanted}",
        )
    async with order.fetching:
        found = await _resolve(wanted, debian.arch, flavours[order.options], tell)
        return await apt.first_available(
            found,
            lambda one: one.image,
            lambda one: _store(one, order),
            tell,
            only_newest=order.is_replacing,
        )


async def _store(found: DebianKernel, order: Order) -> str:
    """Fetch the kernel, unless the cache has it, and its headers where they are asked for; its key."""
    arch, tell = order.arch, order.tell
    packages = await found.packages()
    key = _key(arch, found, packages)
    if order.needs_tree:
        # Before the larger image, which is of no use where the mirrors lack the headers.
        from quizmatrix.kernel import headers

        version = found.image.version
        wanted = headers.Headers(key=key, release=found.release, version=version, root=found.root)
        await headers.make(wanted, order)

    async def make(folder: Path) -> None:
        await _make(folder, key, found, packages, arch, tell)

    await artifact.KERNELS.get_or_make(
        key,
        make,
        action=f"store the kernel {found.release}",
        waiting=lambda: tell("waiting for another quizmatrix that fetches it"),
        find=artifact.load,
    )
    return key


async def _resolve(wanted: str, arch: str, flavour: str, tell: Tell) -> list[DebianKernel]:
    """The wanted kernels in all suites, the newest first. arch, flavour: Debian's names."""
    suites = suites_for(wanted, load_archive(), arch)
    if not suites:
        raise UnpreparedError(
            f"Debian's archive has no ready-made {wanted} kernel for {arch}",
            cause="no suite with that series has this architecture",
            next_step=f"Name one that is built: debian-source:{wanted}.",
        )
    found = await apt.ask_suites(
        suites,
        arch,
        tell,
        lambda root: _all_in(root, wanted, flavour),
        is_first_enough=is_exact(wanted),
    )
    if found:
        every = (one for kernels in found for one in kernels)
        return sorted(every, key=lambda one: (one.version, natural_key(one.image.version)), reverse=True)
    raise UnpreparedError(
        f"Debian's archive has no ready-made {wanted} kernel for {arch}",
        cause=f"asked: {', '.join(suites)}",
        next_step="A series (6.1), an exact version that a suite still has, or `newest`; "
        f"or one that is built: kernel.org:{wanted}.",
    )


async def released(_one: str, _other: str, arch: Arch, tell: Tell) -> dict[KernelVersion, str]:
    """The kernels that the archive's suites have for an architecture, by their versions."""
    debian = arch.facts.debian
    if debian is None or not has_kernels_for(debian.arch):
        return {}
    pattern = image_names(debian.flavour)

    async def ask(root: apt.AptRoot) -> list[KernelVersion]:
        return await versions_in(root, "linux-image-", lambda name: pattern.fullmatch(name) is not None)

    return await released_in(debian.arch, ask, tell)


async def released_in(
    arch: str, ask: Callable[[apt.AptRoot], Awaitable[list[KernelVersion]]], tell: Tell
) -> dict[KernelVersion, str]:
    """The versions that `ask` finds in all suites with Debian's architecture `arch`."""
    suites = [name for name, suite in load_archive().suite.items() if arch in suite.arches]
    found = await apt.ask_suites(suites, arch, tell, ask, is_first_enough=False)
    return {version: version.text for versions in found for version in versions}


async def versions_in(root: apt.AptRoot, prefix: str, fits: Callable[[str], bool]) -> list[KernelVersion]:
    """The versions of a suite's packages with this prefix for which `fits` is true, without candidates."""
    names = [name for name in await root.names(prefix) if fits(name)]
    versions = [leading_version(package.version) for package in (await root.show(*names) if names else [])]
    return [version for version in versions if version is not None and not version.is_candidate]


def suites_for(wanted: str, archive: Archive, arch: str) -> list[str]:
    """The suites that may have the kernel `wanted` for Debian's architecture `arch`.

    These are the suites known for its series or, for another series, those listed for any.
    """
    if wanted == NEWEST:
        return [name for name, suite in archive.suite.items() if arch in suite.arches and suite.newest]
    return archive.suites_of(KernelVersion(wanted).series, arch)


def image_names(flavour: str) -> re.Pattern[str]:
    """A pattern for the names of a flavour's image packages; its group is the release.

    After the version (and the ABI number, in older names) only the flavour may follow: `-cloud-amd64` is
    another flavour than `-amd64`, and `-amd64-unsigned` is none.
    """
    return re.compile(rf"linux-image-(\d+\.\d+[\w.+~]*(?:-\d[\w.~]*)?-{re.escape(flavour)})")


async def _all_in(root: apt.AptRoot, wanted: str, flavour: str) -> list[DebianKernel] | None:
    """The wanted kernels of this flavour in a suite; None where there are none."""
    pattern = image_names(flavour)
    names = [name for name in await root.names("linux-image-") if pattern.fullmatch(name)]
    found = [
        DebianKernel(root=root, release=match[1], version=version, image=package)
        for package in (await root.show(*names) if names else [])
        if (version := leading_version(package.version)) is not None and fits(version, wanted)
        if (match := pattern.fullmatch(package.name)) is not None
    ]
    return found or None


def _key(arch: Arch, found: DebianKernel, packages: list[apt.Package]) -> str:
    """The key of a kernel: from its packages, and from how they are stored."""
    made = [RECIPE, arch.name, arch.facts.kernel.image]
    made += sorted(package.sha256 for package in packages)
    return f"{found.release}-{key_of(made)}"


async def _make(
    folder: Path, key: str, found: DebianKernel, packages: list[apt.Package], arch: Arch, tell: Tell
) -> None:
    size = sum(package.size for package in packages)
    with paths.scratch(folder.parent, "packages") as name:
        fetched, unpacked = Path(name) / "fetched", Path(name) / "unpacked"
        fetched.mkdir()
        unpacked.mkdir()
        tell(f"fetching {found.image.name} ({size // 1_000_000} MB)")
        archives = await found.root.download(packages, fetched)
        tell(f"unpacking {found.image.name}")
        await apt.unpack(archives, unpacked)
        _arrange(unpacked, folder, found.release, arch)
    await modules.index_modules(folder / artifact.LAYER, found.release)
    record = artifact.KernelRecord(
        key=key,
        arch=arch.name,
        version=found.version.text,
        release=found.release,
        packages=[f"{package.name} {package.version}" for package in packages],
    )
    artifact.write_record(folder, record)


def _arrange(unpacked: Path, folder: Path, release: str, arch: Arch) -> None:
    """Move the packages' files to their places in a kernel's folder.

    Suites differ: modules are in /lib/modules or /usr/lib/modules, the image in /boot or beside the modules.
    """

    def first(*names: str) -> Path:
        for name in names:
            if (unpacked / name).exists():
                return unpacked / name
        raise DamagedError(
            f"Debian's packages of {release} have an unknown layout",
            cause=f"none of {', '.join(names)} is there",
        )

    beside = f"usr/lib/modules/{release}"
    image = first(
        f"boot/vmlinuz-{release}", f"{beside}/vmlinuz", f"boot/vmlinux-{release}", f"{beside}/vmlinux"
    )
    config = first(f"boot/config-{release}", f"{beside}/config")
    symbols = first(f"boot/System.map-{release}", f"{beside}/System.map")
    if arch.facts.kernel.image == "vmlinux":
        (folder / artifact.IMAGE).write_bytes(bootimage.vmlinux(image.read_bytes()))
    else:
        shutil.copyfile(image, folder / artifact.IMAGE)
    shutil.copyfile(config, folder / artifact.CONFIG)
    shutil.copyfile(symbols, folder / artifact.SYSTEM_MAP)
    target = folder / artifact.LAYER / "usr/lib/modules"
    target.mkdir(parents=True)
    shutil.move(first(f"lib/modules/{release}", beside), target / release)
