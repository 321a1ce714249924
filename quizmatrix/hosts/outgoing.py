"""Makes what travels of a folder: its listing, and packs of what no earlier pack has."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from quizmatrix.core import json, paths
from quizmatrix.core.errors import DamagedError, HostError, host_error
from quizmatrix.core.store import key_of
from quizmatrix.hosts import blobs
from quizmatrix.hosts.trees import Left, Listing, TreeEntry, entries_of, read_digest, write_pack

# Folders with more packs, or with more bytes in packs than this multiple of their own, are packed anew.
_MOST_PACKS = 16
_MOST_WASTE = 2
_SMALL = 1 << 20
# How often a folder is read that changes meanwhile.
_TRIES = 3


class _Known(msgspec.Struct, frozen=True, array_like=True):
    """A file whose content is known as long as its status stays the same."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    content: str


class _Pack(msgspec.Struct, frozen=True):
    """A pack that was made: its name, and the sizes of what is in it."""

    digest: str
    contents: dict[str, int]


class _State(msgspec.Struct, kw_only=True):
    """What is known of a folder from before."""

    files: dict[str, _Known] = {}
    packs: list[_Pack] = []


def offer(folder: Path, left: Left | None = None) -> str:
    """Make the blobs of a folder, or a file, as it is now; returns the name of its listing.

    left: see trees.entries_of. Raises HostError where it cannot be read or written.
    """
    try:
        blobs.prepare()
        return _offer(folder, left or Left())
    except (OSError, DamagedError) as error:
        raise _no_copy(folder, error) from error


def offer_once(file: Path) -> str:
    """Like `offer`, for a file that will not be offered again once its run is over."""
    try:
        blobs.prepare()
        return _listing(file, _State(), Left())[0]
    except (OSError, DamagedError) as error:
        raise _no_copy(file, error) from error


def _no_copy(path: Path, error: OSError | DamagedError) -> HostError:
    caused = error if isinstance(error, OSError) else OSError(str(error))
    return host_error(f"make a copy of {path} for other hosts", caused)


def _offer(folder: Path, left: Left) -> str:
    place = blobs.BLOBS.root.parent / "states" / f"{key_of([str(folder)])}.json"
    place.parent.mkdir(exist_ok=True)
    listing, now = _listing(folder, _load(place), left)
    paths.write_atomic(place, json.encode_exactly(now), mode=0o600)
    return listing


def _listing(folder: Path, before: _State, left: Left) -> tuple[str, _State]:
    """The name of the listing, whose packs are made, and what is now known of the folder."""
    for attempt in range(_TRIES):
        now = _State()
        left.unreadable = []
        try:
            entries = entries_of(folder, _digest(before, now), left)
            now.packs = _packs(folder, entries, before)
            break
        except (DamagedError, FileNotFoundError, NotADirectoryError):
            # Somebody edits or builds in it. What has changed is read again.
            if attempt == _TRIES - 1 or not folder.exists():
                raise
    listing = Listing(entries=entries, packs=[pack.digest for pack in now.packs])
    return blobs.keep_bytes(listing.encode()), now


def _load(place: Path) -> _State:
    try:
        state = json.decode_exactly(place.read_bytes(), _State)
    except (OSError, ValueError):
        return _State()
    # The cache may have been emptied.
    state.packs = [pack for pack in state.packs if blobs.BLOBS.path(pack.digest).exists()]
    return state


def _digest(before: _State, now: _State) -> Callable[[str, os.stat_result], str]:
    def digest(path: str, status: os.stat_result) -> str:
        facts = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        known = before.files.get(path)
        if known is None or (known.size, known.mtime_ns, known.ctime_ns, known.inode) != facts:
            known = _Known(*facts, read_digest(path, status))
        now.files[path] = known
        return known.content

    return digest


def _packs(folder: Path, entries: list[TreeEntry], before: _State) -> list[_Pack]:
    """The packs that have all contents: earlier ones, and a new one where they lack some."""
    wanted = Listing(entries=entries).contents
    used = [pack for pack in before.packs if not wanted.keys().isdisjoint(pack.contents)]
    for pack in used:
        # Those that were used last are kept.
        os.utime(blobs.BLOBS.path(pack.digest))
    there = {content for pack in used for content in pack.contents}
    bytes_there = sum(size for pack in used for size in pack.contents.values())
    if len(used) >= _MOST_PACKS or bytes_there > _MOST_WASTE * sum(wanted.values()) + _SMALL:
        used, there = [], set()
    missing = {entry.content: entry for entry in entries if entry.is_file and entry.content not in there}
    if not missing:
        return used
    with blobs.unfinished() as made:
        write_pack(folder, missing.values(), made)
        new = _Pack(blobs.keep(made), {content: entry.size for content, entry in missing.items()})
    return [*used, new]
