"""Compilers of Debian's suites, unpacked into the cache: a kernel's modules need the compiler that built it.

A toolchain is for one suite and this host's architecture, with compiler, binutils and C library. Another one,
which uses its libraries, has the cross compiler for a target. They are shared by all kernels of the suite.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from quizmatrix.core import elf, paths, process
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import DamagedError, HostError, UnpreparedError
from quizmatrix.core.process import Tell
from quizmatrix.core.store import Store, key_of
from quizmatrix.debian import apt, foreign
from quizmatrix.debian.foreign import Runtime
from quizmatrix.model.arch import Arch, host_arch
from quizmatrix.model.archive import load_archive

# Part of every key; has to be changed when the same packages are arranged differently.
_RECIPE = "2"

_RECORD = "toolchain.json"
TOOLCHAINS = Store(what="compiler", folder="toolchains", record=f"{{}}/{_RECORD}", lock="toolchain-{}")

# The folder of a toolchain that goes before PATH.
_TOOLS = "bin"
_SPECS = "link.specs"

# Programs that compile, so that they need the toolchain's headers; others are symlinks.
_DRIVER = re.compile(r"(?P<kind>gcc|cpp)-\d+")
# Programs without a prefix that a kernel's build runs: it writes the types of a module with pahole(1).
_PLAIN = ("pahole",)

# What the compilers' packages need and no kernel's module does.
_NOT_NEEDED = re.compile(
    r"lib(asan|hwasan|lsan|tsan|ubsan|itm|gomp|gprofng|stdc\+\+)\d(?!.*-dev).*-cross|debconf|dpkg|perl-base|tar"
)


class Toolchain(msgspec.Struct, frozen=True, kw_only=True):
    """Compilers for a target.

    tools: the folders to put before PATH. used: the folders of the cache that hold it. compiler: the name of
    the target's compiler; host_compiler: of the one for the build's own programs. runtime: what programs of
    its suite run with on this host.
    """

    tools: list[Path]
    used: list[Path]
    compiler: str
    host_compiler: str
    runtime: Runtime

    def make_words(self, arch: Arch) -> list[str]:
        """The words for make(1) with which it builds modules for an architecture."""
        return [
            f"ARCH={arch.facts.build.make_arch}",
            f"CROSS_COMPILE={arch.facts.cross_prefix}",
            f"CC={self.compiler}",
            f"HOSTCC={self.host_compiler}",
        ]


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a stored toolchain. path: where it was made; its programs contain that path."""

    path: str
    runtime: Runtime
    packages: list[str]


def _find(key: str) -> _Record | None:
    """The record of a stored toolchain. Raises DamagedError where it was moved here, or is incomplete."""
    record, place = TOOLCHAINS.read(key, _Record), TOOLCHAINS.path(key)
    if record is not None and (record.path != str(place) or not (place / _TOOLS).is_dir()):
        raise DamagedError(f"the compiler in {place} is incomplete, or was made for {record.path}")
    return record


async def obtain(suite: str, arch: Arch, version: int | None, needed: Sequence[str], tell: Tell) -> Toolchain:
    """The compilers of a suite for an architecture, fetched where the cache lacks them.

    suite: has gcc itself, so not an update suite. version: of gcc, as in `gcc-12`; None: the newest. If the
    suite does not have it, the nearest is taken, which is said. needed: packages whose libraries the suite's
    build programs need.
    Raises UnpreparedError where the suite has no compiler or does not deliver it.
    """
    host = host_arch()
    debian = host.facts.debian
    if debian is None or debian.arch not in load_archive().suite[suite].arches:
        raise UnpreparedError(
            f"Debian's {suite} has no compilers that run on {host.name}",
            next_step="Take a kernel that is built here, such as debian-source:6.12",
        )
    root = apt.AptRoot(load_archive(), suite, debian.arch)
    await root.update()
    names = await root.names("gcc-")
    gcc = _nearest(names, version, "", suite, tell)
    own = await root.resolve([f"gcc-{gcc}", "libc6-dev", *needed])
    home, record = await _unpacked(root, own, host, None, tell)
    prefix = host.facts.cross_prefix
    tools, used = [home / _TOOLS], [home]
    compiler = host_compiler = f"{prefix}gcc-{gcc}"
    if not arch.is_native:
        suffix = arch.facts.build.compiler_package.removeprefix("gcc")
        cross = _nearest(names, version, suffix, suite, tell)
        wanted = [f"gcc-{cross}{suffix}"]
        if arch.facts.debian is not None:
            libc = f"libc6-dev-{arch.facts.debian.arch}-cross"
            wanted += [libc] if libc in await root.names(libc) else []
        there = {package.name for package in own}
        more = [package for package in await root.resolve(wanted) if package.name not in there]
        folder, _ = await _unpacked(root, more, arch, record.runtime, tell)
        tools.insert(0, folder / _TOOLS)
        used.append(folder)
        compiler = f"{arch.facts.cross_prefix}gcc-{cross}"
    return Toolchain(
        tools=tools, used=used, compiler=compiler, host_compiler=host_compiler, runtime=record.runtime
    )


def _nearest(names: list[str], version: int | None, suffix: str, suite: str, tell: Tell) -> int:
    """The version of `gcc-VERSION` + suffix among a suite's packages that is nearest to the wanted one."""
    pattern = re.compile(rf"gcc-(\d+){re.escape(suffix)}")
    there = sorted(int(match[1]) for name in names if (match := pattern.fullmatch(name)))
    if not there:
        raise UnpreparedError(
            f"Debian's {suite} has no gcc{suffix}",
            next_step="Take a kernel that is built here, such as debian-source:6.12",
        )
    if version is None:
        return there[-1]
    nearest = min(there, key=lambda one: (abs(one - version), -one))
    if nearest != version:
        tell(f"Debian's {suite} has no gcc-{version}{suffix}; taking gcc-{nearest}{suffix}")
    return nearest


async def _unpacked(
    root: apt.AptRoot, packages: list[apt.Package], arch: Arch, runtime: Runtime | None, tell: Tell
) -> tuple[Path, _Record]:
    """The folder of a toolchain with these packages, and its record.

    arch: what it compiles for. runtime: of the host's toolchain, which a cross compiler uses; None: this is
    the host's toolchain.
    """
    packages = [package for package in packages if not _NOT_NEEDED.fullmatch(package.name)]
    made_of = [_RECIPE, *sorted(package.sha256 for package in packages), runtime.loader if runtime else ""]
    key = f"{root.suite}-{root.arch}-{arch.name}-{key_of(made_of)}"
    place = TOOLCHAINS.path(key)

    async def make(folder: Path) -> None:
        size = sum(package.size for package in packages) // 1_000_000
        tell(f"fetching the compiler of Debian's {root.suite} for {arch.name} ({size} MB)")
        with paths.scratch(folder.parent, "packages") as name:
            archives = await root.download(packages, Path(name))
            tell(f"unpacking the compiler of Debian's {root.suite} for {arch.name}")
            await apt.unpack(archives, folder)
        await in_thread(partial(foreign.keep_links_inside, folder))
        foreign.merge_usr(folder)
        made = await _adapt(folder, place, runtime)
        _link_programs(folder, place, arch.facts.cross_prefix, made if runtime is None else None)
        record = _Record(
            path=str(place),
            runtime=made,
            packages=[f"{package.name} {package.version}" for package in packages],
        )
        (folder / _RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record)))

    await TOOLCHAINS.get_or_make(
        key,
        make,
        action=f"store the compiler {key}",
        waiting=lambda: tell("waiting for another quizmatrix that fetches the compiler"),
        find=_find,
    )
    record = _find(key)
    if record is None:
        raise DamagedError(f"the compiler {key} vanished from the cache")
    await _check(place, arch, root.suite)
    return place, record


async def _adapt(folder: Path, place: Path, runtime: Runtime | None) -> Runtime:
    """Make all programs in `folder`, which will be moved to `place`, run on this host; what they run with.

    runtime: the host's toolchain's; None: this is the host's toolchain, which has the loader.
    """
    triple = host_arch().facts.cross_prefix.removesuffix("-")
    libraries = [str(place / top / triple) for top in ("usr/lib", "lib")]
    found = await in_thread(lambda: list(foreign.programs(folder, host_machine())))
    if runtime is not None:
        runtime = Runtime(loader=runtime.loader, libraries=[*libraries, *runtime.libraries])
    else:
        loaders = {loader for _, loader in found}
        if len(loaders) != 1:
            raise DamagedError(
                "Debian's compiler has an unknown layout", cause=f"loaders: {', '.join(sorted(loaders))}"
            )
        runtime = Runtime(loader=f"{place}{loaders.pop()}", libraries=libraries)
    await foreign.use_runtime([path for path, _ in found], runtime)
    return runtime


def host_machine() -> elf.Machine:
    """The ELF header of this host's programs."""
    facts = host_arch().facts
    return elf.Machine(machine=facts.elf.machine, bits=facts.elf.bits, byte_order=facts.byte_order)


def _link_programs(folder: Path, place: Path, prefix: str, runtime: Runtime | None) -> None:
    """Fill the folder that goes before PATH: the programs with the target's prefix.

    runtime: of the host's toolchain. Its programs are there without the prefix, too, and what they link runs
    on this host.
    """
    tools = folder / _TOOLS
    tools.mkdir()
    for path in sorted((folder / "usr/bin").iterdir()):
        if not path.name.startswith(prefix):
            continue
        kind = path.name.removeprefix(prefix)
        # `gcc-12` is `gcc`, too. The names without the prefix are this host's own.
        names = [path.name, kind] if runtime is not None else [path.name]
        if driver := _DRIVER.fullmatch(kind):
            _write_driver(tools / path.name, place, driver["kind"], runtime)
        else:
            (tools / path.name).symlink_to(f"../usr/bin/{path.name}")
        for other in (*names, *(re.sub(r"-\d+$", "", name) for name in names)):
            if not os.path.lexists(tools / other):
                (tools / other).symlink_to(path.name)
    if runtime is None:
        return
    (tools / "cc").symlink_to("gcc")
    for name in _PLAIN:
        if (folder / "usr/bin" / name).exists():
            (tools / name).symlink_to(f"../usr/bin/{name}")


def _write_driver(script: Path, place: Path, kind: str, runtime: Runtime | None) -> None:
    """Write a script that runs a compiler with the headers, assembler and libraries of its own toolchain."""
    argv = [str(place / "usr/bin" / script.name), f"--sysroot={place}"]
    if runtime is not None:
        # Else it takes `as` and `ld` from PATH: a cross compiler looks beside itself.
        argv.append(f"-B{place / _TOOLS}/")
    if runtime is not None and kind == "gcc":
        # Not as -Wl: with an option for the linker, `gcc -v` links, and fails. Configure scripts run that.
        (script.parent / _SPECS).write_text(_specs(runtime), encoding="utf-8")
        argv.append(f"-specs={place / _TOOLS / _SPECS}")
    script.write_text(f'#!/bin/sh\nexec {process.printable(argv)} "$@"\n', encoding="utf-8")
    script.chmod(0o755)


def _specs(runtime: Runtime) -> str:
    """GCC's specs file (its manual: "Spec Files") that links programs with the loader and the libraries."""
    words = [f"--dynamic-linker={runtime.loader}", "--disable-new-dtags"]
    words += [word for library in runtime.libraries for word in ("-rpath", library)]
    return "*link:\n+ " + " ".join(re.sub(r"([\s\\%])", r"\\\1", word) for word in words) + "\n\n"


async def _check(place: Path, arch: Arch, suite: str) -> None:
    """Raise HostError where the compiler does not run here, as on a kernel too old for its C library."""
    compiler = str(place / _TOOLS / f"{arch.facts.cross_prefix}gcc")
    done = await process.run([compiler, "--version"])
    if done.status != 0:
        raise HostError(f"the compiler of Debian's {suite} does not run on this host", cause=done.last_words)
