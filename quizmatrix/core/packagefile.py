"""Unpacks .deb and .rpm files with libarchive. They may come from anybody: no script of theirs is run, and
nothing is written outside of the folder.

A .deb is an ar(1) archive with a tar archive in it (deb(5)); an .rpm is a compressed cpio archive behind two
headers, which libarchive skips.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import errno
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from quizmatrix.core import offload, paths
from quizmatrix.core.errors import DamagedError, HostError, QuizmatrixError, UsageError, host_error

if TYPE_CHECKING:
    from libarchive.entry import ArchiveEntry

# The shared library, and its Debian package.
LIBRARY = ("libarchive", "libarchive13")
SUFFIXES = (".deb", ".rpm")

# What all packages of one kernel may hold, in bytes and in entries. A distribution's kernel with all modules
# and its headers has 1 GB in 50,000 entries; one with the symbols for a debugger 5 GB.
MAX_BYTES = 8 << 30
MAX_ENTRIES = 300_000

# Folders in each other. A distribution's kernel has twenty.
_MAX_DEPTH = 100

# Not libarchive's "all": that would start programs such as lrzip(1).
_FILTERS = ("gzip", "bzip2", "xz", "lzma", "zstd")

_BLOCK = 1 << 20

# Errors of the file system that a name in a package causes.
_BAD_NAMES = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP)


def check_library() -> None:
    """Raise HostError where libarchive is not installed."""
    if not os.environ.get("LIBARCHIVE") and ctypes.util.find_library("archive") is None:
        raise HostError(
            "packages cannot be read: libarchive is missing",
            next_step=f"Install it (Debian's package {LIBRARY[1]}).",
        )


class _Refused(msgspec.Struct, frozen=True, kw_only=True):
    """An error of another process. kind: the name of its class."""

    kind: str
    fact: str
    cause: str
    next_step: str


async def unpack(files: list[Path], into: Path) -> None:
    """Like `unpack_here`, in a process of its own: libarchive is written in C, the files may be hostile."""
    names = [str(file) for file in files]
    refused: _Refused | None = await offload.call(_unpack, str(into), *names, returns=_Refused | None)
    if refused is not None:
        kinds: dict[str, type[QuizmatrixError]] = {
            kind.__name__: kind for kind in (DamagedError, HostError, UsageError)
        }
        raise kinds[refused.kind](refused.fact, cause=refused.cause, next_step=refused.next_step)


def _unpack(into: str, *files: str) -> _Refused | None:
    try:
        unpack_here([Path(file) for file in files], Path(into))
    except QuizmatrixError as error:
        kind = type(error).__name__
        return _Refused(kind=kind, fact=error.fact, cause=error.cause, next_step=error.next_step)
    return None


def unpack_here(files: list[Path], into: Path, *, max_entries: int = MAX_ENTRIES) -> None:
    """Unpack packages over each other into an empty folder.

    Absolute symbolic links become relative: they lead where they would if `into` were the root.
    Raises DamagedError where a package is damaged or hostile, HostError where libarchive is missing or the
    disk fails, UsageError for a file that is no package.
    """
    check_library()
    unpacking = _Unpacking(into, max_entries)
    for file in files:
        try:
            unpacking.add(file)
        except OSError as error:
            if error.errno in _BAD_NAMES:
                raise _damaged(file, f"{error.strerror}: {error.filename}") from error
            raise host_error(f"unpack {file.name}", error) from error
    unpacking.make_links()


def _damaged(file: Path, cause: str) -> DamagedError:
    return DamagedError(f"the package {file.name} is damaged, or no package", cause=cause)


def _hostile(file: Path, cause: str) -> DamagedError:
    return DamagedError(
        f"the package {file.name} is not safe to unpack",
        cause=cause,
        next_step="No distribution's kernel is like that: look where it came from.",
    )


class _Unpacking:
    """Packages that are being unpacked.

    Symbolic links are made last, so that no file is written through one.
    """

    def __init__(self, into: Path, max_entries: int) -> None:
        self._into = into
        self._max_entries = max_entries
        self._links: dict[str, tuple[Path, str]] = {}
        self._bytes = 0
        self._entries = 0

    def add(self, file: Path) -> None:
        if file.suffix == ".rpm":
            self._add_archive(file, file, "cpio", ("rpm", *_FILTERS))
        elif file.suffix == ".deb":
            with paths.scratch(self._into.parent, "data") as scratch:
                self._add_archive(file, self._data_of(file, Path(scratch)), "tar", _FILTERS)
        else:
            raise UsageError(f"{file} is no package", cause=f"its name ends in none of {', '.join(SUFFIXES)}")

    def _data_of(self, file: Path, scratch: Path) -> Path:
        """The archive with the files of a .deb; in a file, since libarchive has to seek in it."""
        for entry in _entries(file, file, "ar", ()):
            if str(entry.pathname).startswith("data.tar"):
                self._count(file, entry)
                self._write(file, entry, scratch / "data")
                return scratch / "data"
        raise _damaged(file, "it has no data.tar")

    def _add_archive(self, file: Path, archive: Path, kind: str, filters: tuple[str, ...]) -> None:
        """file: for messages."""
        for entry in _entries(file, archive, kind, filters):
            self._count(file, entry)
            name = _safe_name(file, entry.pathname)
            if name == ".":
                continue
            path = self._into / name
            if entry.islnk:
                self._add_hard_link(file, entry, path)
            elif entry.isdir:
                path.mkdir(parents=True, exist_ok=True)
            elif entry.issym:
                self._links[name] = (file, _text(file, entry.linkpath))
            elif entry.isreg:
                self._write(file, entry, path)
            else:
                raise _hostile(file, f"{name} is a device, a pipe or a socket")

    def _count(self, file: Path, entry: ArchiveEntry) -> None:
        self._entries += 1
        if self._entries > self._max_entries:
            raise _hostile(file, f"it has more than {self._max_entries} files")
        # Before it is read, as what is passed over is decompressed, too.
        if self._bytes + (entry.size or 0) > MAX_BYTES:
            raise _hostile(file, f"it unpacks to more than {MAX_BYTES >> 30} GiB")

    def _write(self, file: Path, entry: ArchiveEntry, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A new file: an earlier one may have several names.
        path.unlink(missing_ok=True)
        path.touch(0o755 if entry.perm & 0o100 else 0o644, exist_ok=False)
        self._fill(file, entry, path)

    def _fill(self, file: Path, entry: ArchiveEntry, path: Path) -> None:
        with path.open("wb") as made:
            for block in _blocks(file, entry):
                self._bytes += len(block)
                if self._bytes > MAX_BYTES:
                    raise _hostile(file, f"it unpacks to more than {MAX_BYTES >> 30} GiB")
                made.write(block)

    def _add_hard_link(self, file: Path, entry: ArchiveEntry, path: Path) -> None:
        """Link a file of the packages; in a cpio archive the last of its names has the content."""
        target = self._into / _safe_name(file, entry.linkpath)
        if path == target:
            return
        if not target.is_file():
            raise _hostile(file, f"{entry.pathname} is a hard link to {entry.linkpath}, which is not in it")
        if entry.size:
            self._fill(file, entry, target)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.hardlink_to(target)

    def make_links(self) -> None:
        """Make the symbolic links, and check that none leads out of the folder."""
        top = Path(os.path.realpath(self._into))
        for name, (file, target) in self._links.items():
            path = self._into / name
            # Its parent folders may be links that were made before.
            if not Path(os.path.realpath(path.parent)).is_relative_to(top):
                raise _leads_out(file, name, target)
            try:
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                path.symlink_to(_relative(name, target))
            except OSError as error:
                if error.errno not in (*_BAD_NAMES, errno.ENOTEMPTY):
                    raise host_error(f"unpack {file.name}", error) from error
                raise _damaged(file, f"the link {name} cannot be made: {error.strerror}") from error
        for name, (file, target) in self._links.items():
            if not Path(os.path.realpath(self._into / name)).is_relative_to(top):
                raise _leads_out(file, name, target)


def _leads_out(file: Path, name: str, target: str) -> DamagedError:
    return _hostile(file, f"the link {name} leads out of it, to {target}")


def _relative(name: str, target: str) -> str:
    """The target of the symbolic link `name`, relative to the link's folder."""
    if not target.startswith("/"):
        return target
    return os.path.relpath(target, PurePosixPath("/", name).parent)


def _text(file: Path, name: object) -> str:
    if not isinstance(name, str) or not name:
        raise _damaged(file, f"it has a file without a valid name: {name!r}")
    return name


def _safe_name(file: Path, given: object) -> str:
    """A path inside the package, without `.` parts."""
    name = _text(file, given)
    if name.startswith("/"):
        raise _hostile(file, f"it has a file with an absolute path: {name}")
    path = PurePosixPath(name)
    if ".." in path.parts:
        raise _hostile(file, f"it has a file outside of it: {name}")
    if len(path.parts) > _MAX_DEPTH:
        raise _hostile(file, f"it has more than {_MAX_DEPTH} folders in each other")
    return str(path)


def _entries(file: Path, archive: Path, kind: str, filters: tuple[str, ...]) -> Iterator[ArchiveEntry]:
    """The entries of an archive. file: for messages."""
    import logging

    from libarchive import ffi
    from libarchive.read import ArchiveRead, new_archive_read

    # Its warnings, such as of names that are not in the user's character set, would go to stderr.
    logging.getLogger("libarchive").addHandler(logging.NullHandler())
    with _errors(file), archive.open("rb") as opened, new_archive_read(kind, "none") as pointer:
        for name in filters:
            ffi.get_read_filter_function(name)(pointer)
        ffi.read_open_fd(pointer, opened.fileno(), _BLOCK)
        yield from ArchiveRead(pointer)


def _blocks(file: Path, entry: ArchiveEntry) -> Iterator[bytes]:
    with _errors(file):
        yield from entry.get_blocks(_BLOCK)


@contextlib.contextmanager
def _errors(file: Path) -> Iterator[None]:
    """Turn libarchive's errors into a DamagedError."""
    from libarchive.exception import ArchiveError

    try:
        yield
    except ArchiveError as error:
        raise _damaged(file, str(error.msg)) from error
