"""Debian's packages of headers: the build trees of its ready-made kernels.

linux-headers-RELEASE has a kernel's configuration and generated headers, its -common the headers of the
source, and linux-kbuild the build's own programs, which are taken for this host's architecture.
"""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path

import msgspec

from quizmatrix.core import paths, uses
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import DamagedError, NotInArchiveError
from quizmatrix.core.version import natural_key
from quizmatrix.debian import apt, foreign
from quizmatrix.debian.foreign import Runtime
from quizmatrix.kernel import buildtree, debianbeside, toolchain
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.buildtree import TREES
from quizmatrix.kernel.order import Order
from quizmatrix.kernel.toolchain import Toolchain
from quizmatrix.model.arch import host_arch
from quizmatrix.model.archive import load_archive

# The packages that a package of headers needs, and the compiler: `gcc-14`, linux-compiler-gcc-12-x86, ...
_HEADERS = re.compile(r"linux-headers-[\w.+~-]+")
_KBUILD = re.compile(r"linux-kbuild-[\w.+~-]+")
_COMPILER = re.compile(r"\bgcc-(\d+)\b")

# Where the files of the packages are; Makefiles name it as an absolute path.
_SOURCES = "usr/src"
_ABSOLUTE = re.compile(rf"(?<![\w.-])/{_SOURCES}/")


class Headers(msgspec.Struct, frozen=True, kw_only=True):
    """The packages of headers of one kernel in one suite.

    key: of the kernel. version: of its packages, by Debian's numbers.
    """

    key: str
    release: str
    version: str
    root: apt.AptRoot


class _Packages(msgspec.Struct, frozen=True, kw_only=True):
    """The packages of a build tree.

    main: the headers. others: those that they share with other flavours. kbuild: the build's programs, from
    tools: the suite's packages for this host's architecture.
    """

    main: apt.Package
    others: list[apt.Package]
    kbuild: list[apt.Package]
    tools: apt.AptRoot

    @property
    def all(self) -> list[apt.Package]:
        return [self.main, *self.others, *self.kbuild]


async def obtain(kernel: Kernel, order: Order) -> None:
    """Make the build tree of a stored kernel, from the suite that has its headers.

    Raises NotInArchiveError where no suite has them any more, UnpreparedError where they cannot be fetched.
    """
    record = kernel.record
    async with order.fetching:
        root, package = await debianbeside.find(kernel, f"linux-headers-{record.release}", order)
        found = Headers(key=record.key, release=record.release, version=package.version, root=root)
        await make(found, order)


async def make(headers: Headers, order: Order) -> None:
    """Make the build tree of a kernel from its packages, unless the cache has it; `order.fetching` is held.

    Raises NotInArchiveError where the archive lacks one of them.
    """
    if buildtree.find(headers.key) is not None:
        return
    tell = order.tell
    packages = await _find_packages(headers)
    compiler = _COMPILER.search(packages.main.depends)
    compilers = await toolchain.obtain(
        load_archive().suite[headers.root.suite].compilers or headers.root.suite,
        order.arch,
        int(compiler[1]) if compiler else None,
        [name for one in packages.kbuild for name in first_choices(one.depends)],
        tell,
    )

    async def fill(folder: Path) -> None:
        await _fill(folder, headers, packages, compilers, order)

    held = uses.Uses()
    try:
        # Until the tree's record names them, another process may take the compilers for unused.
        for used in compilers.used:
            await held.hold(used)
        await TREES.get_or_make(
            headers.key,
            fill,
            action=f"store the headers of {headers.release}",
            waiting=lambda: tell("waiting for another quizmatrix that fetches the headers"),
            find=buildtree.find_whole,
        )
    finally:
        held.release()


async def _find_packages(headers: Headers) -> _Packages:
    root, version = headers.root, headers.version
    (main,) = await _packages(root, [f"linux-headers-{headers.release}"], version)
    host = host_arch().facts.debian
    tools = root
    if host is not None and host.arch != root.arch:
        tools = apt.AptRoot(load_archive(), root.suite, host.arch)
        await tools.update()
    return _Packages(
        main=main,
        others=await _packages(root, _HEADERS.findall(main.depends), version),
        # An older kernel's headers need `linux-kbuild-6.1 (>= VERSION)`, which fits several releases.
        kbuild=await _packages(tools, _KBUILD.findall(main.depends), version, or_newer=True),
        tools=tools,
    )


async def _fill(
    folder: Path, headers: Headers, packages: _Packages, compilers: Toolchain, order: Order
) -> None:
    """Fetch and unpack the packages, and make them a tree that works at its place in the cache."""
    order.tell(f"fetching linux-headers-{headers.release}")
    with paths.scratch(folder.parent, "packages") as name:
        of_target, of_host = Path(name) / "target", Path(name) / "host"
        of_target.mkdir()
        of_host.mkdir()
        archives = await headers.root.download([packages.main, *packages.others], of_target)
        archives += await packages.tools.download(packages.kbuild, of_host)
        order.tell(f"unpacking linux-headers-{headers.release}")
        await apt.unpack(archives, folder)
    await _arrange(folder, headers.release, TREES.path(headers.key), compilers.runtime)
    sources = TREES.path(headers.key) / _SOURCES
    common = next((one.name for one in packages.others if "-common" in one.name), packages.main.name)
    record = buildtree.TreeRecord(
        folder=str(sources / packages.main.name),
        source=str(sources / common),
        make=compilers.make_words(order.arch),
        tools=[str(tool) for tool in compilers.tools],
        toolchains=[used.name for used in compilers.used],
        packages=[f"{package.name} {package.version}" for package in packages.all],
    )
    buildtree.write_record(folder, record)


async def _packages(
    root: apt.AptRoot, names: list[str], version: str, *, or_newer: bool = False
) -> list[apt.Package]:
    """The packages of these names. Raises NotInArchiveError where the suite lacks one in this version."""
    shown = {package.name: package for package in await root.show(*names)} if names else {}
    for name in names:
        found = shown[name].version if name in shown else ""
        if found != version and not (or_newer and natural_key(found) > natural_key(version)):
            raise NotInArchiveError(
                f"Debian's {root.suite} ({root.arch}) lacks {name} {version}",
                cause=f"it has {found}" if found else "",
            )
    return [shown[name] for name in names]


def first_choices(depends: str) -> list[str]:
    """The names in a Depends field; of alternatives, the first one."""
    names = [re.split(r"[ (|:]", part.strip(), maxsplit=1)[0] for part in depends.split(",")]
    return [name for name in names if name]


async def _arrange(folder: Path, release: str, place: Path, runtime: Runtime) -> None:
    """Make unpacked packages of headers work at another place than /usr, and on this host.

    place: where `folder` will be. runtime: what the build's programs run with.
    """
    await in_thread(partial(foreign.keep_links_inside, folder))
    tree = folder / _SOURCES / f"linux-headers-{release}"
    if not (tree / "Makefile").is_file():
        raise DamagedError(
            f"Debian's packages of headers of {release} have an unknown layout",
            cause=f"{tree.relative_to(folder)}/Makefile is missing",
        )
    buildtree.check_release(tree, release)
    for makefile in (folder / _SOURCES).glob("*/Makefile"):
        point_makefile(makefile, place / _SOURCES)
    machine = toolchain.host_machine()
    found = await in_thread(lambda: [path for path, _ in foreign.programs(folder, machine)])
    await foreign.use_runtime(found, runtime)


def point_makefile(makefile: Path, sources: Path) -> None:
    """Replace the absolute path /usr/src of a package's Makefile by the folder where the package is."""
    text = makefile.read_text(encoding="utf-8")
    pointed = _ABSOLUTE.sub(lambda _match: f"{sources}{os.sep}", text)
    if pointed != text:
        makefile.write_text(pointed, encoding="utf-8")
