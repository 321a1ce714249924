"""Makes the folders of a job from another host: fetches what this host lacks, and unpacks it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from quizmatrix.core import paths, uses
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import DamagedError, host_error
from quizmatrix.hosts import blobs
from quizmatrix.hosts.trees import ALONE, Listing, unpack

# The name of a single file in its folder.
_FILE = ".quizmatrix-file"

# Fetches a blob into a new file: its name, and the path.
FetchBlob = Callable[[str, Path], Awaitable[None]]


async def folder_of(digest: str, fetch: FetchBlob, held: uses.Uses) -> Path:
    """The folder, or the file, that a listing describes; made where this host does not have it.

    fetch: raises a QuizmatrixError where a blob cannot be had. held: keeps it from removal. Raises HostError
    where it cannot be written, DamagedError where what has come is not what was asked for.
    """
    place = blobs.TREES.path(digest)
    try:
        blobs.prepare()
        async with blobs.TREES.locked(digest):
            if not (await held.hold(place)):
                listing = Listing.decode((await _blob(digest, fetch, held)).read_bytes())
                packs = [await _blob(pack, fetch, held) for pack in listing.packs]
                await in_thread(partial(_make, listing, packs, place))
                await held.hold(place)
            # Those that were used last are kept. Not the mtime of what is in it: templates depend on that.
            os.utime(place)
    except OSError as error:
        raise host_error("store what comes from another host", error) from error
    return file if (file := place / _FILE).is_file() else place


async def _blob(digest: str, fetch: FetchBlob, held: uses.Uses) -> Path:
    path = blobs.BLOBS.path(digest)
    async with blobs.BLOBS.locked(digest):
        if not (await held.hold(path)):
            # What has come of it stays if the connection breaks: the next try goes on behind it.
            part = path.with_name(f".{digest}.part")
            await fetch(digest, part)
            try:
                await in_thread(partial(blobs.check, part, digest))
            except DamagedError:
                part.unlink()
                raise
            part.replace(path)
            await held.hold(path)
        os.utime(path)
    return path


def _make(listing: Listing, packs: list[Path], place: Path) -> None:
    with paths.new_dir(place) as made:
        is_file = [entry.path for entry in listing.entries] == [ALONE]
        unpack(listing, packs, made / _FILE if is_file else made)
