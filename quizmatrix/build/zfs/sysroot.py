"""Makes sysroots: the headers and libraries that OpenZFS's programs are built against, one per architecture.

They come from Debian's packages, which are unpacked and not installed. For an architecture without Debian
packages, the libraries are built from Debian's sources, and the C library is the cross compiler's.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from quizmatrix.build.zfs import libraries
from quizmatrix.build.zfs.libraries import SYSROOTS
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.core.jobserver import JobServer
from quizmatrix.core.process import Tell, helper_path, require_program
from quizmatrix.core.store import key_of
from quizmatrix.debian import apt
from quizmatrix.image import debian
from quizmatrix.model.arch import Arch
from quizmatrix.model.archive import is_carried, load_archive

# Part of a sysroot's name; has to be changed when the same packages are arranged differently.
_RECIPE = "1"

PACKAGES = (
    *("libc6-dev", "libgcc-s1", "libblkid-dev", "uuid-dev", "libtirpc-dev", "libssl-dev"),
    *("zlib1g-dev", "libattr1-dev", "libaio-dev", "libcurl4-openssl-dev"),
)
# Programs that stand before this host's while ./configure runs.
_PROGRAMS = Path(__file__).with_name("programs")


class Sysroot(msgspec.Struct, frozen=True, kw_only=True):
    """A sysroot, and the options with which a compiler uses it.

    compiler: the value of CC. preprocessor, linker: flags. packages: folders of pkg-config's files.
    libraries: folders with the shared libraries for a guest.
    """

    folder: Path
    suite: str
    compiler: str
    preprocessor: str = ""
    linker: str = ""
    packages: list[Path]
    libraries: list[Path]

    @property
    def programs(self) -> dict[str, str]:
        """More variables for `configure`, which asks programs of this host about libraries."""
        headers = next(self.folder.glob("usr/include/*/curl/curlver.h"), self.folder / "none")
        path = os.pathsep.join([str(_PROGRAMS), helper_path()])
        return {"PATH": path, "CURL_VERSION_HEADER": str(headers)}

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which `configure` finds it."""
        return {
            "CC": self.compiler,
            "CPPFLAGS": self.preprocessor,
            "PKG_CONFIG_SYSROOT_DIR": str(self.folder),
            "PKG_CONFIG_LIBDIR": ":".join(map(str, self.packages)),
        }


def require_tools(arch: Arch) -> str:
    """The name of the compiler. Raises HostError where it, or another tool, is not installed."""
    compiler = "gcc" if arch.is_native else f"{arch.facts.cross_prefix}gcc"
    require_program(compiler, "gcc" if arch.is_native else arch.facts.build.compiler_package)
    require_program("pkg-config", "pkg-config")
    if not is_carried(arch):
        libraries.require_tools()
    return compiler


def sysroot_of(arch: Arch, suite: str | None) -> Sysroot:
    """The sysroot of an architecture, whether the cache has it or not. suite: Debian's suite.

    Raises HostError where a tool is missing.
    """
    compiler = require_tools(arch)
    triple = arch.facts.cross_prefix.removesuffix("-")
    if is_carried(arch):
        name = debian.choose_suite(arch, suite)
        folder = SYSROOTS.path(_key(f"{arch.name}-{name}"))
        usr = folder / "usr"
        return Sysroot(
            folder=folder,
            suite=name,
            compiler=f"{compiler} --sysroot={folder}",
            packages=[usr / "lib" / triple / "pkgconfig", usr / "share/pkgconfig"],
            libraries=[usr / "lib" / triple, folder / "lib" / triple],
        )
    folder = SYSROOTS.path(_key(arch.name))
    usr = folder / "usr"
    return Sysroot(
        folder=folder,
        suite="",
        compiler=compiler,
        preprocessor=f"-I{usr}/include -I{usr}/include/tirpc",
        linker=f"-L{usr}/lib",
        packages=[usr / "lib/pkgconfig"],
        libraries=[Path("/usr") / triple / "lib"],
    )


def _key(name: str) -> str:
    return f"{name}-{key_of([f'{_RECIPE} {PACKAGES}'], 12)}"


async def obtain(
    arch: Arch, suite: str | None, pool: JobServer, tell: Tell, *, is_offline: bool = False
) -> Sysroot:
    """The sysroot of an architecture, made where the cache lacks it: completely or not at all.

    suite: Debian's suite. pool: shared by all builds. Raises NotFetchedError where packages cannot be
    fetched, UnpreparedError where libraries cannot be built or, offline, are missing, HostError where a tool
    is missing.
    """
    found = sysroot_of(arch, suite)
    if is_offline and not found.folder.is_dir():
        raise UnpreparedError(
            f"the cache has no libraries of {arch.name}",
            cause="--offline",
            next_step="Once without --offline: they are fetched.",
        )

    async def make(into: Path) -> None:
        if found.suite:
            await _unpack(arch, found.suite, into, tell)
        else:
            await libraries.build_libraries(arch, into, pool, tell)

    key = found.folder.name
    await SYSROOTS.get_or_make(
        key,
        make,
        action=f"make the sysroot {key}",
        waiting=lambda: tell("waiting for a sysroot"),
        lock="-".join(filter(None, [arch.name, found.suite])),
    )
    return found


async def _unpack(arch: Arch, suite: str, into: Path, tell: Tell) -> None:
    debian_arch = arch.facts.debian.arch if arch.facts.debian else ""
    root = apt.AptRoot(load_archive(), suite, debian_arch)
    tell(f"fetching the libraries of {arch.name} from Debian's {suite}")
    await root.update()
    packages = await root.resolve(list(PACKAGES))
    files = await root.fetch(packages)
    await apt.unpack(list(files.values()), into)
    _make_links_relative(into)


def _make_links_relative(root: Path) -> None:
    """Make absolute symlinks relative, so that they point into the sysroot and not to this host's files."""
    for top, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = Path(top) / name
            if path.is_symlink() and (target := path.readlink()).is_absolute():
                path.unlink()
                path.symlink_to(os.path.relpath(root / target.relative_to("/"), top))
