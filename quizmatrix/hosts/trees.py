"""Folders by content: what is in one (a listing), what of it travels (packs), and how it is made again.

All that travels is a file that is named by the SHA-256 of its content: a blob. A pack is a tar archive,
compressed with zstd, whose members are the contents of files, named by their own SHA-256. A listing says
which files a folder has, and which packs have their contents. Where a file of a folder changes, one more pack
has the new content alone.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import zstandard

from quizmatrix.core import json
from quizmatrix.core.checksum import sha256_of
from quizmatrix.core.errors import DamagedError

# The name of a folder that is a single file.
ALONE = ""

_CHUNK = 1 << 20
# zstd's fastest level that still halves modules; more would take longer than the network.
_LEVEL = 1


class TreeEntry(msgspec.Struct, frozen=True, kw_only=True, array_like=True, omit_defaults=True):
    """What a folder has at one path.

    content: the SHA-256 of a file; empty for a folder or a symlink. target: of a symlink.
    """

    path: str
    mode: int
    mtime_ns: int = 0
    size: int = 0
    content: str = ""
    target: str = ""

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder has, parents before what is in them, and the packs with the contents of its files."""

    entries: list[TreeEntry]
    packs: list[str] = []

    @property
    def contents(self) -> dict[str, int]:
        """The contents of its files, with their sizes."""
        return {entry.content: entry.size for entry in self.entries if entry.is_file}

    def encode(self) -> bytes:
        """JSON from which `decode` makes an equal listing, compressed."""
        return zstandard.compress(json.encode_exactly(self), _LEVEL)

    @staticmethod
    def decode(data: bytes) -> Listing:
        """Read the output of `encode`. Raises DamagedError for anything else."""
        try:
            plain = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
            return json.decode_exactly(plain, Listing)
        except (ValueError, zstandard.ZstdError) as error:
            raise DamagedError("a listing of a folder cannot be read", cause=str(error)) from error


# Returns the SHA-256 of a file whose status is given: read, or known from before.
Digest = Callable[[str, os.stat_result], str]


def read_digest(path: str, _status: os.stat_result) -> str:
    """The SHA-256 of a file. Raises OSError."""
    return sha256_of(Path(path))


class Left(msgspec.Struct, kw_only=True):
    """What of a folder stays at home.

    wanted: whether a path in it does, with what is below that. unreadable: paths that this user may not read.
    """

    wanted: Callable[[str], bool] = lambda _path: False
    unreadable: list[str] = []


def entries_of(folder: Path, digest: Digest = read_digest, left: Left | None = None) -> list[TreeEntry]:
    """What is in a folder, or the single file that it is; sockets, FIFOs and devices do not travel.

    left: what is left out; unreadable paths are added to it. A file that vanishes meanwhile is left out.
    Raises OSError where the folder itself, or a single file, cannot be read.
    """
    top = str(folder)
    if not folder.is_dir():
        alone = _entry(top, ALONE, folder.stat(), digest)
        return [alone] if alone else []
    return list(_walk(top, digest, left or Left()))


def _walk(top: str, digest: Digest, left: Left) -> Iterator[TreeEntry]:
    todo = [""]
    while todo:
        here = todo.pop()
        try:
            with os.scandir(f"{top}/{here}" if here else top) as found:
                sorted_entries = sorted(found, key=lambda one: one.name)
        except PermissionError:
            if not here:
                raise
            left.unreadable.append(here)
            continue
        for one in sorted_entries:
            path = f"{here}/{one.name}" if here else one.name
            if left.wanted(path):
                continue
            try:
                entry = _entry(f"{top}/{path}", path, one.stat(follow_symlinks=False), digest)
            except FileNotFoundError:
                continue
            except PermissionError:
                left.unreadable.append(path)
                continue
            if entry is None:
                continue
            yield entry
            if stat.S_ISDIR(entry.mode):
                todo.append(path)


def _entry(full: str, path: str, status: os.stat_result, digest: Digest) -> TreeEntry | None:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        content = digest(full, status)
        return TreeEntry(
            path=path, mode=mode, mtime_ns=status.st_mtime_ns, size=status.st_size, content=content
        )
    if stat.S_ISLNK(mode):
        return TreeEntry(path=path, mode=mode, target=str(Path(full).readlink()))
    if stat.S_ISDIR(mode):
        return TreeEntry(path=path, mode=mode, mtime_ns=status.st_mtime_ns)
    return None


def write_pack(folder: Path, entries: Iterable[TreeEntry], target: Path) -> None:
    """Write the contents of these files of a folder to a pack.

    Raises DamagedError where a file is not what the entry says: it has changed meanwhile. Raises OSError.
    """
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    with (
        target.open("wb") as raw,
        compressor.stream_writer(raw) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for entry in entries:
            member = tarfile.TarInfo(entry.content)
            member.size = entry.size
            with (folder / entry.path if entry.path else folder).open("rb") as file:
                hashed = _Hashed(file)
                try:
                    archive.addfile(member, hashed)
                except OSError as error:
                    if error.errno is not None:
                        raise
                    # tarfile's own: the file has become shorter.
                    raise _changed(folder, entry) from error
                if hashed.digest.hexdigest() != entry.content:
                    raise _changed(folder, entry)


def _changed(folder: Path, entry: TreeEntry) -> DamagedError:
    return DamagedError(f"{folder / entry.path} has changed while it was read")


class _Hashed(io.RawIOBase):
    """Reads a file and hashes what was read."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def unpack(listing: Listing, packs: Iterable[Path], folder: Path) -> None:
    """Make a folder as it was listed: `folder` is new and empty, or does not exist where it is a single file.

    Nothing is written outside of it, whatever listing and packs say. Raises DamagedError where they do not
    fit, OSError.
    """
    wanted: dict[str, list[TreeEntry]] = {}
    for entry in listing.entries:
        if entry.is_file:
            wanted.setdefault(entry.content, []).append(entry)
    _make_folders(listing, folder)
    for pack in packs:
        _unpack_one(pack, wanted, folder)
    if wanted:
        raise DamagedError(f"the packs lack the content of {next(iter(wanted.values()))[0].path!r}")
    _make_links(listing, folder)


def _make_folders(listing: Listing, folder: Path) -> None:
    for entry in listing.entries:
        path = _inside(folder, entry)
        if stat.S_ISDIR(entry.mode):
            path.mkdir()


def _inside(folder: Path, entry: TreeEntry) -> Path:
    """The path of an entry. Raises DamagedError where that would be outside of the folder."""
    parts = entry.path.split("/")
    if entry.path != ALONE and not {"", ".", ".."}.isdisjoint(parts):
        raise DamagedError(f"a listing has the path {entry.path!r}")
    return folder / entry.path if entry.path else folder


def _unpack_one(pack: Path, wanted: dict[str, list[TreeEntry]], folder: Path) -> None:
    try:
        with (
            pack.open("rb") as raw,
            zstandard.ZstdDecompressor().stream_reader(raw) as plain,
            tarfile.open(fileobj=plain, mode="r|") as archive,
        ):
            for member in archive:
                entries = wanted.pop(member.name, None)
                if entries is not None and (content := archive.extractfile(member)) is not None:
                    _write(content, entries, folder)
    except (tarfile.TarError, zstandard.ZstdError) as error:
        raise DamagedError(f"the pack {pack} cannot be read", cause=str(error)) from error


def _write(content: object, entries: list[TreeEntry], folder: Path) -> None:
    first = _inside(folder, entries[0])
    digest = hashlib.sha256()
    with first.open("xb") as file:
        while data := content.read(_CHUNK):  # type: ignore[attr-defined]
            digest.update(data)
            if data.count(0) == len(data):
                # Disks and images have large holes.
                file.seek(len(data), os.SEEK_CUR)
            else:
                file.write(data)
        file.truncate()
    if digest.hexdigest() != entries[0].content:
        raise DamagedError(f"a pack has another content for {entries[0].path!r} than its name says")
    for entry in entries[1:]:
        shutil.copyfile(first, _inside(folder, entry))
    for entry in entries:
        path = _inside(folder, entry)
        path.chmod(stat.S_IMODE(entry.mode))
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))


def _make_links(listing: Listing, folder: Path) -> None:
    """Make the symlinks, after which nothing may be written through a path; then the modes of folders."""
    for entry in listing.entries:
        if stat.S_ISLNK(entry.mode):
            _inside(folder, entry).symlink_to(entry.target)
    for entry in reversed(listing.entries):
        if stat.S_ISDIR(entry.mode):
            path = folder / entry.path
            path.chmod(stat.S_IMODE(entry.mode) | stat.S_IRWXU)
            os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
