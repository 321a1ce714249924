"""Makes the folders of a job from another host: fetches what this host lacks, and unpacks it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from quizmatrix.core import paths, uses
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import DamagedError, NotFetchedError, QuizmatrixError, host_error
from quizmatrix.hosts import blobs
from quizmatrix.hosts.trees import ALONE, Listing, unpack

# The name of a single file in its folder.
_FILE = ".quizmatrix-file"

# Fetches a blob into a file, which may have its beginning: its name, and the path.
FetchBlob = Callable[[str, Path], Awaitable[None]]


class Sources(msgspec.Struct, frozen=True):
    """Where blobs come from.

    fetches: the best first. Each raises a QuizmatrixError where it has not got it. tell_has: is called with
    what has come.
    """

    fetches: Sequence[FetchBlob]
    tell_has: Callable[[str], Awaitable[None]]


async def folder_of(digest: str, sources: Sources, held: uses.Uses) -> Path:
    """The folder, or the file, that a listing describes; made where this host does not have it.

    held: keeps it from removal. Raises HostError
    where it cannot be written, DamagedError where what has come is not what was asked for.
    """
    place = blobs.TREES.path(digest)
    try:
        blobs.prepare()
        async with blobs.TREES.locked(digest):
            if not (await held.hold(place)):
                listing = Listing.decode((await _blob(digest, sources, held)).read_bytes())
                packs = [await _blob(pack, sources, held) for pack in listing.packs]
                await in_thread(partial(_make, listing, packs, place))
                await held.hold(place)
            # Those that were used last are kept. Not the mtime of what is in it: templates depend on that.
            os.utime(place)
    except OSError as error:
        raise host_error("store what comes from another host", error) from error
    return file if (file := place / _FILE).is_file() else place


async def _blob(digest: str, sources: Sources, held: uses.Uses) -> Path:
    path = blobs.BLOBS.path(digest)
    async with blobs.BLOBS.locked(digest):
        if not (await held.hold(path)):
            # What has come of it stays if the connection breaks: the next try goes on behind it.
            part = path.with_name(f".{digest}.part")
            for number, fetch in enumerate(sources.fetches, 1):
                try:
                    await _checked(digest, fetch, part)
                    break
                except QuizmatrixError:
                    if number == len(sources.fetches):
                        raise
            part.replace(path)
            await sources.tell_has(digest)
            await held.hold(path)
        os.utime(path)
    return path


async def _checked(digest: str, fetch: FetchBlob, part: Path) -> None:
    await fetch(digest, part)
    try:
        await in_thread(partial(blobs.check, part, digest))
    except DamagedError:
        part.unlink()
        raise
    except FileNotFoundError as error:
        raise NotFetchedError(f"{digest[:12]} has not come") from error


def _make(listing: Listing, packs: list[Path], place: Path) -> None:
    with paths.new_dir(place) as made:
        is_file = [entry.path for entry in listing.entries] == [ALONE]
        unpack(listing, packs, made / _FILE if is_file else made)
