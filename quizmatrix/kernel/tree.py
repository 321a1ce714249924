"""Kernel source trees: reads their version, and unpacks archives that all builds share."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from quizmatrix.core import paths, process
from quizmatrix.core.buildstep import BuildStep
from quizmatrix.core.process import Tell
from quizmatrix.core.store import Store
from quizmatrix.core.version import KernelVersion

# The programs that tar(1) starts for a compressed archive, and their Debian packages.
_DECOMPRESSORS = {".xz": ("xz", "xz-utils"), ".zst": ("zstd", "zstd"), ".bz2": ("bzip2", "bzip2")}


async def _no_check_out() -> None:
    """Most trees have their files already."""


class KernelTree(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel's source.

    key: names its content. origin: where it came from, for a person. work: the name of the build folder of a
    tree that changes; by default each kernel has its own. check_out: brings `path` to this content; called
    while no other build runs. defined: returns which of the given configuration symbols the Kconfig files
    define, and possibly more; set where `path` has this content only after check_out.
    """

    path: Path
    version: KernelVersion
    key: str
    origin: str
    work: str | None = None
    check_out: Callable[[], Awaitable[None]] = _no_check_out
    defined: Callable[[list[str]], Awaitable[set[str]]] | None = None


def read_version(tree: Path) -> KernelVersion:
    """The version in a source tree's Makefile. Raises ValueError where it is no kernel source."""
    try:
        text = (tree / "Makefile").read_text(encoding="utf-8", errors="replace")[:4096]
    except OSError as error:
        raise ValueError(f"{tree} is no kernel source: {error.strerror}: Makefile") from error
    return version_of_makefile(text, str(tree))


def version_of_makefile(text: str, where: str) -> KernelVersion:
    """The version in the text of a kernel's top Makefile. Raises ValueError where there is none."""
    fields = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *= *(\S*)", text, re.MULTILINE))
    candidate = re.match(r"-rc\d+", fields.get("EXTRAVERSION", ""))
    patch = "" if candidate else f".{fields.get('SUBLEVEL') or 0}"
    try:
        return KernelVersion(
            f"{fields['VERSION']}.{fields['PATCHLEVEL']}{patch}{candidate.group() if candidate else ''}"
        )
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{where} is no kernel source: its Makefile has no VERSION and PATCHLEVEL"
        ) from error


def absolute(place: str) -> Path:
    """The absolute path of a file or folder; expands `~`, which no shell does in a matrix.

    Raises ValueError where `~NAME` names no user.
    """
    try:
        return Path(place).expanduser().resolve()
    except RuntimeError as error:
        raise ValueError(f"{place} names no user's home") from error


# Unpacked sources, and work trees of repositories.
SOURCE_TREES = Store(what="source", folder="sources")


async def unpacked(name: str, fetch: Callable[[Path], Awaitable[Path]], tell: Tell) -> Path:
    """The folder of the source `name`, unpacked once for all architectures and configurations.

    fetch: is called, where the source is missing, with a temporary folder; returns the archive. Raises
    UnpreparedError where the archive cannot be unpacked, HostError where the disk is full.
    """

    async def make(folder: Path) -> None:
        with paths.scratch(SOURCE_TREES.root, "archive") as scratch:
            archive = await fetch(Path(scratch))
            tell(f"unpacking {archive.name}")
            await _extract(archive, folder)

    return await SOURCE_TREES.get_or_make(
        name, make, action=f"unpack {name}", waiting=lambda: tell("waiting for its source")
    )


async def _extract(archive: Path, into: Path) -> None:
    """Unpack with tar(1), which knows every compression, and writes no file outside of the folder."""
    if archive.suffix in _DECOMPRESSORS:
        process.require_program(*_DECOMPRESSORS[archive.suffix])
    step = BuildStep(
        fact=f"{archive.name} could not be unpacked", next_step="Is the file whole, and a tar archive?"
    )
    # --force-local: else tar would take a name with a colon for a file on another host.
    await step.run(
        [
            *("tar", "--extract", "--force-local", "--strip-components=1"),
            *(f"--file={archive}", f"--directory={into}"),
        ]
    )
