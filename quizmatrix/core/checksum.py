"""Checksums: whether a stored file is still what was stored, and whether a source tree has changed."""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

# Folders of version control: changes in them do not change what is built.
VERSION_CONTROL = frozenset({".git", ".svn", ".hg"})


class Checksum(msgspec.Struct, frozen=True, kw_only=True):
    """A file's size in bytes, mtime in nanoseconds and SHA-256, from when it was stored."""

    size: int
    mtime_ns: int
    sha256: str

    def matches(
        self, path: Path, *, thoroughly: bool = False, digest: Callable[[Path], str] | None = None
    ) -> bool:
        """Whether `path` still has the stored content.

        Compares size and mtime. Reads the content only if the mtime differs, or if `thoroughly` is set.
        digest: what the checksum was made with, if not `sha256_of`.
        """
        try:
            now = path.stat()
            if now.st_size != self.size:
                return False
            return (now.st_mtime_ns == self.mtime_ns and not thoroughly) or (digest or sha256_of)(
                path
            ) == self.sha256
        except OSError:
            return False


def checksum_of(path: Path, digest: Callable[[Path], str] | None = None) -> Checksum:
    """The checksum of a file as it is now. digest: what it is made with; by default `sha256_of`."""
    now = path.stat()
    return Checksum(size=now.st_size, mtime_ns=now.st_mtime_ns, sha256=(digest or sha256_of)(path))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _walk(tree: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Like os.walk, but without recursion, which fails at a depth of a thousand. Symlinks count as files."""
    todo = [str(tree)]
    while todo:
        top = todo.pop()
        folders: list[str] = []
        names: list[str] = []
        try:
            with os.scandir(top) as entries:
                for entry in entries:
                    (folders if entry.is_dir(follow_symlinks=False) else names).append(entry.name)
        except OSError:
            continue  # removed meanwhile, not readable for us, or a path that is too long
        yield top, folders, names
        todo += [f"{top}/{name}" for name in folders]


def has_same_content(one: Path, other: Path, *, without: frozenset[str] = frozenset()) -> bool:
    """Whether two source trees have the same files, with the same content. It is read.

    without: top-level folders that are ignored.
    """
    files, others = (
        {name: (now.st_mode, now.st_size) for name, now in files_of(tree, without=without).items()}
        for tree in (one, other)
    )
    return files == others and all(_is_same(f"{one}/{name}", f"{other}/{name}") for name in files)


def files_of(tree: Path, *, without: frozenset[str] = frozenset()) -> dict[str, os.stat_result]:
    """The status of every file in a source tree, by its path there. without: top-level folders to ignore."""
    found = {}
    for top, folders, names in _walk(tree):
        # In a work tree that `git worktree` made, .git is a file.
        left_out = VERSION_CONTROL | without if Path(top) == tree else VERSION_CONTROL
        folders[:] = set(folders) - left_out
        for name in set(names) - VERSION_CONTROL:
            with contextlib.suppress(OSError):
                found[os.path.relpath(f"{top}/{name}", tree)] = os.lstat(f"{top}/{name}")
    return found


def _is_same(one: str, other: str) -> bool:
    try:
        if Path(one).is_symlink():
            return Path(one).readlink() == Path(other).readlink()
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def state_of(tree: Path, *, without: frozenset[str] = frozenset(), at_most: int | None = None) -> str:
    """A hash of the path, size and mtime of every file in a source tree.

    The content is not read: reading 80,000 files would take longer than building a small change.
    without: top-level folders that are ignored.
    at_most: limit on the number of files; a tree with more gives an empty string.
    """
    digest = hashlib.sha256(os.fsencode(tree.resolve()))
    looked_at = 0
    for top, folders, names in _walk(tree):
        left_out = VERSION_CONTROL | without if Path(top) == tree else VERSION_CONTROL
        folders[:] = sorted(set(folders) - left_out, reverse=True)
        if at_most is not None and looked_at + len(names) > at_most:
            return ""  # before sorting: a long sort blocks all other threads
        for name in sorted(names):
            try:
                now = os.lstat(f"{top}/{name}")
            except OSError:
                continue
            looked_at += 1
            if at_most is not None and looked_at > at_most:
                return ""
            digest.update(f"{top}/{name}\0{now.st_size} {now.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]
