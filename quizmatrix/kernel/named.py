"""The kernel source `named`: a matrix gives a kernel a name, and says which packages it is made of.

Packages that are named by URL are downloaded once, and kept in the cache by their SHA-256.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from quizmatrix.core.errors import UnpreparedError, host_error
from quizmatrix.core.store import Store
from quizmatrix.kernel import package
from quizmatrix.kernel.kernelsource import KernelSource
from quizmatrix.kernel.order import Order
from quizmatrix.kernel.tree import absolute
from quizmatrix.model import named
from quizmatrix.model.arch import Arch

if TYPE_CHECKING:
    from quizmatrix.model.named import RemoteFile

# Downloaded packages: a folder for each SHA-256, beside those of apt.
DOWNLOADS = Store(what="package", folder="packages", lock="package-{}")


def check(wanted: str) -> str:
    """Check `NAME=FILES`, and make paths absolute. Raises ValueError where a file is missing."""
    name, files = named.split(wanted)
    found = [file if named.is_remote(file) else package.check(file) for file in files]
    for file in found:
        if named.is_remote(file):
            named.remote(file)
    return named.specification(name, found).partition(":")[2]


def _local(wanted: str) -> list[Path]:
    """The packages that are files of this host. A folder stands for those in it."""
    local = [absolute(file) for file in named.split(wanted)[1] if not named.is_remote(file)]
    return [file for place in local for file in package.files_of(place)]


def _remote(wanted: str) -> list[RemoteFile]:
    return [named.remote(file) for file in named.split(wanted)[1] if named.is_remote(file)]


def recipe(wanted: str, arch: Arch) -> str:
    """A text that changes when a file of this host does. A URL has its SHA-256."""
    return package.recipe_of(_local(wanted), arch)


def is_local(wanted: str) -> bool:
    """Whether all packages are on this host, or were downloaded before."""
    return all(_place_of(file).is_file() for file in _remote(wanted))


async def fetch(wanted: str, order: Order) -> str:
    """Have the kernel in the packages in the cache; returns its key.

    Raises NotFetchedError where one cannot be downloaded or has another SHA-256, UnpreparedError where they
    are damaged, hostile, for another architecture, or lack something.
    """
    from quizmatrix.kernel import packages

    name = named.split(wanted)[0]
    files = _local(wanted)
    async with order.fetching:
        files += [await _downloaded(file, order) for file in _remote(wanted)]
    if not files:
        raise UnpreparedError(f"the packages of {name} are not there any more")
    return await packages.store(files, order, where=name)


def _place_of(file: RemoteFile) -> Path:
    return DOWNLOADS.path(file.sha256) / file.name


async def _downloaded(file: RemoteFile, order: Order) -> Path:
    """The downloaded file; it is checked even if it was there before. UnpreparedError as for `fetch`."""
    from quizmatrix.core import download
    from quizmatrix.core.checksum import sha256_of
    from quizmatrix.core.concurrency import in_thread

    place = _place_of(file)
    waiting = f"waiting for another quizmatrix that fetches {file.name}"
    try:
        async with DOWNLOADS.locked(file.sha256, lambda: order.tell(waiting)):
            place.parent.mkdir(parents=True, exist_ok=True)
            is_whole = place.is_file() and await in_thread(partial(sha256_of, place)) == file.sha256
            if not is_whole and order.is_offline:
                raise UnpreparedError(
                    f"{file.name} is damaged in the cache",
                    cause="--offline forbids fetching it again",
                    next_step="This without --offline.",
                )
            if not is_whole:
                order.tell(f"fetching {file.url}")
                otherwise = "If its publisher has replaced it, the matrix needs its new SHA-256."
                got = await download.fetch_file(
                    file.url, place.parent, order.tell, sha256=file.sha256, otherwise=otherwise
                )
                got.replace(place)
    except OSError as error:
        raise host_error(f"store {file.name}", error) from error
    return place


SOURCE = KernelSource(
    check=check,
    recipe=recipe,
    fetch=fetch,
    is_local=is_local,
    is_built=False,
    example='Give it a name in a matrix: [kernel.NAME] ARCH = ["FILE", ...].',
)
