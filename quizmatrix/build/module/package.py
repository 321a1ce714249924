"""The source of modules in Debian's packages for DKMS, which have it in usr/src/NAME-VERSION.

It is read from a .deb file, or from one that apt fetches. The package is unpacked into the cache, and no
script of it is run.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from quizmatrix.build.module import dkmsconf
from quizmatrix.core import packagefile, paths
from quizmatrix.core.checksum import sha256_of
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import UnpreparedError, UsageError, host_error
from quizmatrix.core.process import Tell
from quizmatrix.core.store import Store, key_of
from quizmatrix.debian.apt import AptRoot, Package, ask_suites
from quizmatrix.model.archive import Archive, load_archive

# The unpacked packages, by content; references say which one an `apt:` word meant last.
SOURCES = Store(what="module source", folder="module-sources", lock="module-source-{}")

_FROM_APT = re.compile(r"apt:([a-z0-9][a-z0-9+.-]*)(?:/([\w.-]+))?")

# A module's source is for all architectures, and so are nearly all of these packages.
_INDEX_ARCH = "amd64"


def is_package(asked: str) -> bool:
    """Whether a word names a package, and no folder."""
    return asked.startswith("apt:") or (asked.endswith(".deb") and not Path(asked).is_dir())


async def obtain(asked: str, tell: Tell, *, is_offline: bool) -> list[Path]:
    """The folders with a dkms.conf in a package, unpacked.

    Raises UsageError where there is no such package or no dkms.conf in it, NotFetchedError where it cannot be
    fetched, UnpreparedError where that is not allowed, DamagedError where it is damaged or hostile.
    """
    key = await _fetched(asked, tell, is_offline) if asked.startswith("apt:") else await _opened(Path(asked))
    found = sorted(path.parent for path in SOURCES.path(key).glob(f"usr/src/*/{dkmsconf.NAME}"))
    if not found:
        raise UsageError(
            f"{asked} holds no module's source",
            cause=f"there is no usr/src/NAME/{dkmsconf.NAME} in it",
            next_step="Debian's packages that have one are called NAME-dkms.",
        )
    return found


async def _opened(file: Path) -> str:
    """The key of a package file, which is unpacked where it is not yet."""
    try:
        digest = await in_thread(partial(sha256_of, file))
    except OSError as error:
        raise UsageError(f"{file} cannot be read", cause=error.strerror or str(error)) from error
    return await _unpacked(digest, file)


async def _unpacked(digest: str, file: Path) -> str:
    key = key_of([digest])

    async def unpack(made: Path) -> None:
        await packagefile.unpack([file], made)

    await SOURCES.get_or_make(key, unpack, action=f"unpack {file.name}", waiting=lambda: None)
    return key


async def _fetched(asked: str, tell: Tell, is_offline: bool) -> str:
    """The key of a package of the archive."""
    words = _FROM_APT.fullmatch(asked)
    archive = load_archive()
    if words is None or (words[2] and words[2] not in archive.suite):
        raise UsageError(
            f"`{asked}` is no package",
            next_step="Write apt:NAME-dkms or apt:NAME-dkms/SUITE. Suites: " + ", ".join(archive.suite),
        )
    reference = asked.replace("/", "@")
    if is_offline:
        known = (SOURCES.read_reference(reference) or b"").decode()
        if known and SOURCES.path(known).is_dir():
            return known
        raise UnpreparedError(f"{asked} is not in the cache", next_step="Run this once without --offline.")

    async def ask(root: AptRoot) -> tuple[AptRoot, Package] | None:
        found = await root.show(words[1])
        return (root, found[0]) if found else None

    suites = [words[2]] if words[2] else _newest_first(archive)
    answers = await ask_suites(suites, _INDEX_ARCH, tell, ask, is_first_enough=True)
    if not answers:
        raise UsageError(
            f"no suite of Debian's has a package {words[1]}", cause=f"asked: {', '.join(suites)}"
        )
    root, package = answers[0]
    key = key_of([package.sha256])
    if not SOURCES.path(key).is_dir():
        tell(f"fetching {package.name} {package.version} of {root.suite}")
        try:
            with paths.scratch(SOURCES.root, "fetched") as scratch:
                (file,) = await root.download([package], Path(scratch))
                await _unpacked(package.sha256, file)
        except OSError as error:
            raise host_error("fetch a package", error) from error
    SOURCES.write_reference(reference, key.encode())
    return key


def _newest_first(archive: Archive) -> list[str]:
    """The suites that are asked where none is named, the newest first; not what is too new for sid."""
    return [name for name, suite in reversed(archive.suite.items()) if suite.series or suite.newest]
