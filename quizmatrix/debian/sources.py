"""Fetches and unpacks Debian source packages, for programs without a binary package."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from quizmatrix.core import process
from quizmatrix.core.buildstep import BuildStep
from quizmatrix.core.errors import DamagedError, NotFetchedError
from quizmatrix.core.process import Tell
from quizmatrix.debian import apt
from quizmatrix.model.archive import load_archive

# The suites that are tried, in order. Sources are for all architectures; the index of this one is used.
SUITES = ("bookworm", "trixie")
_INDEX_ARCH = "amd64"

# The archives of a source package in the format `3.0 (quilt)` (dpkg-source(1)).
_UPSTREAM = re.compile(r"_[^_]+\.orig\.tar\.\w+")
_DEBIAN = re.compile(r"_[^_]+\.debian\.tar\.\w+")

# Error texts of gcc, ld and configure that mean that the cross compiler's C library is missing.
_NEEDS_C_LIBRARY = (
    "The cross compiler needs its C library. On Debian: sudo apt-get install libc6-dev-ARCH-cross"
)
ADVICE = dict.fromkeys(
    (".h: No such file or directory", "cannot find -lc", "compiler cannot create executables"),
    _NEEDS_C_LIBRARY,
)

# The programs that unpack sources, with their Debian packages.
TOOLS = {"tar": "tar", "xz": "xz-utils", "bzip2": "bzip2", "patch": "patch"}


async def obtain(package: str, into: Path, tell: Tell) -> Path:
    """Fetch and unpack a source package with Debian's patches into a new folder of its name below `into`.

    Raises NotFetchedError if no suite delivers it, DamagedError if its layout is unknown, HostError if a tool
    is missing.
    """
    for tool, of in TOOLS.items():
        process.require_program(tool, of)
    archives = await _fetch(package, into, tell)
    return await unpack(archives, package, into)


async def _fetch(package: str, into: Path, tell: Tell) -> Path:
    """A folder with the files from the first suite that has them all; mirrors sometimes lack some."""
    archive = load_archive()
    failure: NotFetchedError | None = None
    for suite in SUITES:
        folder = into / f"{package}.{suite}"
        folder.mkdir()
        root = apt.AptRoot(archive, suite, _INDEX_ARCH, sources=True)
        tell(f"asking Debian's {suite} for the source of {package}")
        try:
            await root.update()
            await root.download_sources([package], folder)
        except NotFetchedError as error:
            failure = failure or error
            tell(f"{error}; going on without it")
            continue
        return folder
    raise failure or AssertionError("there are suites")


async def unpack(archives: Path, package: str, into: Path) -> Path:
    """Unpack a source package and apply Debian's patches; DamagedError where its layout is unknown."""
    tree = into / package
    tree.mkdir()
    upstream, debian = choose(package, (path.name for path in archives.iterdir()))
    for name, strip in ((upstream, 1), (debian, 0)):
        file = f"--file={archives / name}"
        await _step(["tar", "--extract", "--force-local", f"--strip-components={strip}", file], tree)
    for name in patches(tree):
        await _step(["patch", "-s", "-p1", "-i", str(tree / "debian/patches" / name)], tree)
    return tree


def choose(package: str, names: Iterable[str]) -> tuple[str, str]:
    """Upstream's and Debian's archive among the names of a source package's files.

    Signatures and the .dsc, which apt has verified, are ignored. Raises DamagedError for any other files: a
    source without patches, or one of several parts.
    """
    files = sorted(name for name in names if not name.endswith((".asc", ".dsc")))
    upstream = [name for name in files if _UPSTREAM.fullmatch(name.removeprefix(package))]
    debian = [name for name in files if _DEBIAN.fullmatch(name.removeprefix(package))]
    if len(upstream) != 1 or len(debian) != 1 or len(files) != 2:
        raise unknown_layout(package, f"its files: {', '.join(files) or 'none'}")
    return upstream[0], debian[0]


def patches(tree: Path) -> list[str]:
    """The names of Debian's patches in a tree, in the order of application (quilt(1), "series")."""
    series = tree / "debian/patches/series"
    lines = series.read_text().splitlines() if series.exists() else []
    return [line.split()[0] for line in lines if line.strip() and not line.lstrip().startswith("#")]


def unknown_layout(package: str, cause: str = "") -> DamagedError:
    """The error for a source package whose files are not where they are expected."""
    return DamagedError(f"Debian's source of {package} has an unknown layout", cause=cause)


async def _step(argv: list[str], tree: Path) -> None:
    fact = f"the source of {tree.name} could not be unpacked: `{process.printable(argv)}`"
    await BuildStep(fact=fact, folder=tree).run(argv)
