"""The kernel source `debian-source`: built here from the archive's `linux-source-*` packages."""

from __future__ import annotations

import tempfile
from pathlib import Path

from quizmatrix import apt, paths, process
from quizmatrix.arch import Arch
from quizmatrix.errors import UnpreparedError, host_error
from quizmatrix.kernel import build
from quizmatrix.kernel.build import Options, Tree
from quizmatrix.kernel.debian import NEWEST, fits, suites_for
from quizmatrix.process import Tell
from quizmatrix.version import KernelVersion, leading_version

# The packages are for any architecture; the index that is asked is this one's.
_INDEX_ARCH = "amd64"


async def fetch(wanted: str, arch: Arch, options: Options, tell: Tell) -> str:
    """Have the kernel `wanted` built in the cache; returns its key.

    Raises UnpreparedError where the archive has no such source, or it cannot be built.
    """
    return await build.build(await _tree(wanted, tell), arch, options, tell)


async def _tree(wanted: str, tell: Tell) -> Tree:
    """The unpacked source, shared by all architectures and configurations of this version."""
    root, package = await _resolve(wanted, tell)
    version = leading_version(package.version)
    if version is None:
        raise UnpreparedError(f"{package.name} has the version {package.version}, which is no kernel's")
    folder = paths.cache_dir() / "sources" / f"{package.name}-{package.version}-{package.sha256[:12]}"
    tree = Tree(path=folder, version=version, key=package.sha256, origin=f"{package.name} {package.version}")
    async with paths.locked(
        paths.cache_dir() / "locks" / f"{folder.name}.lock", lambda: tell("waiting for its source")
    ):
        if not folder.is_dir():
            try:
                await _unpack(root, package, folder, tell)
            except OSError as error:
                raise host_error(f"unpack {package.name}", error) from error
    return tree


async def _unpack(root: apt.AptRoot, package: apt.Package, folder: Path, tell: Tell) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".packages.") as name:
        packages, unpacked = Path(name) / "packages", Path(name) / "unpacked"
        packages.mkdir()
        unpacked.mkdir()
        tell(f"fetching {package.name} ({package.size // 1_000_000} MB)")
        await apt.unpack(await root.download([package], packages), unpacked)
        (archive,) = unpacked.glob("usr/src/linux-source-*.tar.xz")
        tell(f"unpacking {package.name}")
        process.require_program("xz", "xz-utils")
        with paths.new_dir(folder) as made:
            done = await process.run(
                [
                    "tar",
                    "--extract",
                    "--xz",
                    "--strip-components=1",
                    f"--file={archive}",
                    f"--directory={made}",
                ]
            )
            if done.status != 0:
                raise UnpreparedError(f"{archive.name} could not be unpacked", cause=done.last_words)


async def _resolve(wanted: str, tell: Tell) -> tuple[apt.AptRoot, apt.Package]:
    """The package, from the first suite that has it."""
    suites = suites_for(wanted, apt.load_archive(), _INDEX_ARCH)
    found = await apt.ask_suites(suites, _INDEX_ARCH, tell, lambda root: _newest_in(root, wanted))
    if found is not None:
        return found
    raise UnpreparedError(
        f"Debian's archive has no source of the kernel {wanted}",
        cause=f"asked: {', '.join(suites)}",
        next_step="A series (6.1), or the exact version that a suite has, or `newest`.",
    )


async def _newest_in(root: apt.AptRoot, wanted: str) -> tuple[apt.AptRoot, apt.Package] | None:
    names = await root.names("linux-source-")
    if wanted != NEWEST:
        names = [name for name in names if name == f"linux-source-{KernelVersion(wanted).series}"]
    found = [
        (version, package)
        for package in (await root.show(*names) if names else [])
        if (version := leading_version(package.version)) is not None and fits(version, wanted)
    ]
    return (root, max(found, key=lambda pair: pair[0])[1]) if found else None
