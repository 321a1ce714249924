"""Cross-builds the libraries that OpenZFS needs, for architectures without Debian packages.

They are built from Debian's source packages, as static archives of position-independent code: a program
linked with them needs only the C library in a guest.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from quizmatrix.core import paths, process
from quizmatrix.core.buildstep import BuildStep
from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import QuizmatrixError, host_error
from quizmatrix.core.jobserver import JobServer
from quizmatrix.core.process import Tell
from quizmatrix.core.store import Store
from quizmatrix.debian import sources
from quizmatrix.model.arch import Arch, ArchFile

SYSROOTS = Store(what="sysroot", folder="sysroots", lock="sysroot-{}")

_TOOLS = {"make": "make", "perl": "perl"}

_CFLAGS = "-O2 -fPIC"

# The ./configure command of packages that use autoconf.
_AUTOCONF = ("./configure", "--host={triple}", "--prefix=/usr", "--disable-shared", "--enable-static")

# Keeps make from running autoconf again: Debian's patches make configure.ac newer than configure.
_AS_SHIPPED = ("ACLOCAL=:", "AUTOCONF=:", "AUTOHEADER=:", "AUTOMAKE=:")

# Algorithms that OpenZFS does not use and that take long to compile. It uses only PBKDF2 with SHA-1 or SHA-2,
# to derive keys (lib/libzfs/libzfs_crypto.c).
_NOT_OF_LIBCRYPTO = (
    *("aria", "bf", "camellia", "cast", "chacha", "cmp", "cms", "ct", "des", "dh", "dsa", "ec", "idea"),
    *("legacy", "ocsp", "poly1305", "rc2", "rc4", "rmd160", "seed", "siphash", "sm2", "sm3", "sm4", "srp"),
    *("ssl", "tls", "ts", "whirlpool"),
)


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """How a library is built from Debian's source package.

    configure: a command; its words may contain {triple} (the cross compiler's prefix, without its last dash)
    and {order} (B or L, for the byte order). make: the arguments for each run of make(1). files: the patterns
    of the files to install, by their folder below usr.
    """

    source: str
    configure: tuple[str, ...] = ()
    make: tuple[tuple[str, ...], ...]
    files: dict[str, tuple[str, ...]]


LIBRARIES = (
    # linux-generic64 is for every 64-bit architecture, without assembler code. --old-file: in the makefile,
    # libcrypto.pc depends on libssl.a, which is not needed.
    Library(
        source="openssl",
        configure=(
            *("perl", "Configure", "linux-generic64", "-D{order}_ENDIAN", "--prefix=/usr", "--libdir=lib"),
            *("no-shared", "no-module", "no-engine", "no-dso", "no-tests"),
            *(f"no-{name}" for name in _NOT_OF_LIBCRYPTO),
        ),
        make=(("build_generated",), ("--old-file=libssl.a", "libcrypto.a", "libcrypto.pc")),
        files={
            "include/openssl": ("include/openssl/*.h",),
            "lib": ("libcrypto.a",),
            "lib/pkgconfig": ("libcrypto.pc",),
        },
    ),
    Library(
        source="util-linux",
        configure=(
            *(*_AUTOCONF, "--disable-all-programs", "--enable-libuuid", "--enable-libblkid"),
            *("--disable-nls", "--disable-asciidoc", "--disable-bash-completion", "--without-python"),
            *("--without-systemd", "--without-udev", "--without-ncurses", "--without-ncursesw"),
        ),
        make=((*_AS_SHIPPED, "libuuid.la", "libblkid.la", "libuuid/uuid.pc", "libblkid/blkid.pc"),),
        files={
            "include/blkid": ("libblkid/src/blkid.h",),
            "include/uuid": ("libuuid/src/uuid.h",),
            "lib": (".libs/libblkid.a", ".libs/libuuid.a"),
            "lib/pkgconfig": ("libblkid/blkid.pc", "libuuid/uuid.pc"),
        },
    ),
    Library(
        source="libtirpc",
        configure=(*_AUTOCONF, "--disable-gssapi"),
        make=(("-C", "src", *_AS_SHIPPED, "libtirpc.la"),),
        files={
            "include/tirpc": ("tirpc/*.h",),
            "include/tirpc/rpc": ("tirpc/rpc/*.h",),
            "include/tirpc/rpcsvc": ("tirpc/rpcsvc/*.h",),
            "lib": ("src/.libs/libtirpc.a",),
            "lib/pkgconfig": ("libtirpc.pc",),
        },
    ),
    Library(
        source="zlib",
        configure=("./configure", "--static", "--prefix=/usr"),
        make=(("libz.a",),),
        files={"include": ("zlib.h", "zconf.h"), "lib": ("libz.a",), "lib/pkgconfig": ("zlib.pc",)},
    ),
    Library(
        source="libaio",
        make=(("-C", "src", "libaio.a"),),
        files={"include": ("src/libaio.h",), "lib": ("src/libaio.a",)},
    ),
)


def require_tools() -> None:
    """Raise HostError where a tool that builds the libraries is missing."""
    for tool, package in _TOOLS.items():
        process.require_program(tool, package)


async def build_libraries(arch: Arch, into: Path, pool: JobServer, tell: Tell) -> None:
    """Build the libraries for an architecture, and install them below `into`.

    pool: shared by all builds. Raises HostError where a tool is missing, NotFetchedError where a source
    cannot be fetched, DamagedError where its layout is unknown, UnpreparedError where it cannot be compiled.
    """
    require_tools()
    logs = SYSROOTS.path("logs")
    logs.mkdir(parents=True, exist_ok=True)
    failures: list[QuizmatrixError] = []
    with paths.scratch(SYSROOTS.root, "build") as name:
        trees = {
            library.source: await sources.obtain(library.source, Path(name), tell) for library in LIBRARIES
        }
        tell(f"building {', '.join(library.source for library in LIBRARIES)} for {arch.name}")

        async def one(library: Library) -> None:
            log = logs / f"{library.source}-{arch.name}.log"
            try:
                log.unlink(missing_ok=True)
                await _build(library, arch, trees[library.source], log, pool)
                take(library, trees[library.source], into / "usr")
            except OSError as error:
                failures.append(host_error(f"build {library.source} for {arch.name}", error))
            except QuizmatrixError as error:
                failures.append(error)
            if failures:
                group.cancel_scope.cancel()

        async with task_group() as group:
            for library in LIBRARIES:
                group.start_soon(one, library)
    if failures:
        raise failures[0]


def configuration(library: Library, facts: ArchFile) -> list[str]:
    """The command that configures a library for an architecture; empty where it needs none."""
    triple = facts.cross_prefix.removesuffix("-")
    return [word.format(triple=triple, order=facts.byte_order[0].upper()) for word in library.configure]


async def _build(library: Library, arch: Arch, tree: Path, log: Path, pool: JobServer) -> None:
    triple = arch.facts.cross_prefix.removesuffix("-")
    # CC, AR and RANLIB are for libraries without a prefix option, CHOST is the prefix for zlib's configure.
    tools = {"CC": "gcc", "AR": "ar", "RANLIB": "ranlib"}
    own = {name: f"{triple}-{tool}" for name, tool in tools.items()} | {"CFLAGS": _CFLAGS, "CHOST": triple}
    step = BuildStep(
        fact=f"{library.source} for {arch.name} could not be built",
        folder=tree,
        log=log,
        env=own,
        advice=sources.ADVICE,
    )
    if words := configuration(library, arch.facts):
        async with pool.token():
            await step.run(words)
    for arguments in library.make:
        await msgspec.structs.replace(step, pool=pool).run(["make", *arguments])


def take(library: Library, tree: Path, usr: Path) -> None:
    """Copy a library's files out of its build tree. Raises DamagedError where one is missing."""
    for folder, patterns in library.files.items():
        (usr / folder).mkdir(parents=True, exist_ok=True)
        for pattern in patterns:
            found = list(tree.glob(pattern))
            if not found:
                raise sources.unknown_layout(library.source, f"there is no {pattern} after it was built")
            for path in found:
                shutil.copyfile(path, usr / folder / path.name)
