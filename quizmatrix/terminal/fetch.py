"""Copies files and folders out of a guest, for `cp`. The guest decides on their content, and on nothing else.

The guest's SFTP server is hostile: it may send names with slashes, the same name twice (first as a symlink,
then as a file), and trees and files without end.
"""

from __future__ import annotations

import errno
import os
import posixpath
import secrets
import stat
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, cast

from quizmatrix.core import untrusted

if TYPE_CHECKING:
    from asyncssh import SFTPAttrs, SFTPClient

# Bytes asked for at a time.
_CHUNK = 1 << 20
# Bytes that stay free on this host's disk.
_RESERVE = 64 << 20

# Limits of one copy: files and folders, and levels of folders.
_MOST_FILES = 1_000_000
_DEEPEST = 100

_LINKS = "symbolic links that lead out of it, now text files"
_NO_FILES = "no files (devices, FIFOs, sockets), left out"
_NO_NAMES = "under names that no file can have, left out"
_TOO_DEEP = f"folders more than {_DEEPEST} levels deep, left out"


class Fetch:
    """One copy out of a guest."""

    def __init__(self, sftp: SFTPClient) -> None:
        """sftp: a connection to the guest's server."""
        self._sftp = sftp
        self._links: list[tuple[tuple[bytes, ...], bytes]] = []
        self._odd: Counter[str] = Counter()
        self._files = 0

    async def copy(self, source: str, target: Path) -> str:
        """Copy a file, or a folder with its content; in words, what differs from the original.

        source: in the guest. target: its new name, or a folder to put it into. Raises OSError and
        asyncssh.SFTPError.
        """
        path = os.fsencode(posixpath.normpath(source))
        attrs = await self._sftp.stat(path)
        if target.is_dir():
            name = os.fsdecode(posixpath.basename(path))
            if name in ("", ".."):
                raise OSError(errno.EINVAL, "say under which name it is to be copied", source)
            target /= name
        if _is_stream(target):
            with target.open("wb") as stream:
                await self._read(path, stream.fileno())
            return ""
        if stat.S_ISLNK(attrs.permissions or 0):
            raise OSError(errno.ELOOP, "it is a link that leads nowhere", source)
        parent = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            await self._take(parent, (os.fsencode(target.name),), path, attrs)
            self._make_links(parent, target)
        finally:
            os.close(parent)
        return "; ".join(f"{count} {what}" for what, count in self._odd.items())

    async def _take(self, folder: int, place: tuple[bytes, ...], path: bytes, attrs: SFTPAttrs) -> None:
        """Copy one file, folder or symlink into `folder`. place: its path below the copy's root."""
        self._files += 1
        if self._files > _MOST_FILES:
            raise OSError(errno.EFBIG, f"these are more than {_MOST_FILES} files")
        kind = stat.S_IFMT(attrs.permissions or 0)
        if kind == stat.S_IFDIR:
            if len(place) > _DEEPEST:
                self._odd[_TOO_DEEP] += 1
            else:
                await self._take_folder(folder, place, path, attrs)
        elif kind == stat.S_IFREG:
            await self._take_file(folder, place[-1], path, attrs)
        elif kind == stat.S_IFLNK:
            # Symlinks are made at the end, so that no file can be written through one.
            self._links.append((place, os.fsencode(await self._sftp.readlink(path))))
        else:
            self._odd[_NO_FILES] += 1

    async def _take_folder(
        self, folder: int, place: tuple[bytes, ...], path: bytes, attrs: SFTPAttrs
    ) -> None:
        here = untrusted.make_folder(place[-1], at=folder)
        try:
            async for entry in self._sftp.scandir(path):
                name = os.fsencode(entry.filename)
                if name in (b".", b".."):
                    continue
                if not name or b"/" in name or b"\0" in name:
                    self._odd[_NO_NAMES] += 1
                    continue
                await self._take(here, (*place, name), posixpath.join(path, name), entry.attrs)
            _set_attributes(here, attrs, stat.S_IRWXU)
        finally:
            os.close(here)

    async def _take_file(self, folder: int, name: bytes, path: bytes, attrs: SFTPAttrs) -> None:
        # Written under a secret name, then renamed: a symlink of the guest's is replaced, not followed.
        made = f".quizmatrix-{secrets.token_hex(8)}".encode()
        handle = untrusted.create(made, at=folder)
        try:
            try:
                await self._read(path, handle)
                _set_attributes(handle, attrs, 0)
            finally:
                os.close(handle)
            os.rename(made, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(made, dir_fd=folder)
            raise

    async def _read(self, path: bytes, handle: int) -> None:
        """Read to the end, whatever size the server gave."""
        async with self._sftp.open(path, "rb", encoding=None) as file:
            while data := await file.read(_CHUNK):
                view = memoryview(cast(bytes, data))
                while view:
                    view = view[os.write(handle, view) :]
                disk = os.fstatvfs(handle)
                if 0 < disk.f_bavail * disk.f_frsize < _RESERVE:
                    raise OSError(errno.ENOSPC, "this host's disk is nearly full", os.fsdecode(path))

    def _make_links(self, parent: int, target: Path) -> None:
        root = os.fsencode(target)
        made = []
        for place, link in self._links:
            folder = os.dup(parent)
            try:
                for name in place[:-1]:
                    below = untrusted.open_folder(name, at=folder)
                    os.close(folder)
                    folder = below
                untrusted.replace_by_symlink(link, place[-1], at=folder)
            finally:
                os.close(folder)
            made.append(Path(os.fsdecode(posixpath.join(root, *place[1:]))))
        for path in made:
            if untrusted.make_link_safe(str(target), path):
                self._odd[_LINKS] += 1


def _is_stream(target: Path) -> bool:
    """Whether the target is a terminal, a pipe or /dev/null, which a rename would replace."""
    try:
        mode = target.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _set_attributes(handle: int, attrs: SFTPAttrs, least: int) -> None:
    """Set the mtime, and the permissions without set-user-ID, set-group-ID and the sticky bit."""
    os.fchmod(handle, (attrs.permissions or 0) & 0o777 | least)
    if attrs.mtime is not None:
        seconds = min(max(0, int(attrs.mtime)), 1 << 33)
        os.utime(handle, (seconds, seconds))
