"""Copying files out of a guest, from a stand-in for its SFTP server."""

import contextlib
import os
import posixpath
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import asyncssh
import pytest

from quizmatrix.terminal import fetch


class File:
    """An open file."""

    def __init__(self, data: bytes) -> None:
        """data: the bytes that were not read yet."""
        self._data = data

    async def read(self, size: int) -> bytes:
        """The next bytes."""
        data, self._data = self._data[:size], self._data[size:]
        return data


class Server:
    """A tree of files by path: bytes of a file, target of a symlink, None for a folder, or another's mode."""

    def __init__(self, tree: dict[bytes, bytes | str | int | None]) -> None:
        """tree: of absolute paths."""
        self._tree = tree

    def _attrs(self, path: bytes) -> asyncssh.SFTPAttrs:
        entry = self._tree[path]
        if isinstance(entry, int):
            return asyncssh.SFTPAttrs(permissions=entry)
        kinds = {bytes: stat.S_IFREG | 0o4755, str: stat.S_IFLNK | 0o777, type(None): stat.S_IFDIR | 0o500}
        return asyncssh.SFTPAttrs(permissions=kinds[type(entry)], mtime=1_000_000_000)

    async def stat(self, path: bytes) -> asyncssh.SFTPAttrs:
        """As stat(2)."""
        return self._attrs(self._end_of(path))

    def _end_of(self, path: bytes) -> bytes:
        entry = self._tree[path]
        return posixpath.join(posixpath.dirname(path), entry.encode()) if isinstance(entry, str) else path

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        """What is in a folder."""
        for entry in list(self._tree):
            if posixpath.dirname(entry) == path and entry != path:
                yield asyncssh.SFTPName(posixpath.basename(entry), attrs=self._attrs(entry))

    async def readlink(self, path: bytes) -> bytes:
        """A link's target."""
        return str(self._tree[path]).encode()

    @contextlib.asynccontextmanager
    async def open(self, path: bytes, _mode: str, encoding: str | None) -> AsyncIterator[File]:
        """A file, for reading."""
        data = self._tree[self._end_of(path)]
        assert isinstance(data, bytes)
        assert encoding is None
        yield File(data)


def copy(tree: dict[bytes, Any], source: str, target: Path) -> str:
    return anyio.run(fetch.Fetch(Server(tree)).copy, source, target)  # type: ignore[arg-type]


def test_a_tree(tmp_path: Path) -> None:
    tree = {
        b"/t": None,
        b"/t/file": b"x" * 3_000_000,
        b"/t/empty": b"",
        b"/t/sub": None,
        b"/t/sub/in": "../file",
        b"/t/sub/out": "../../file",
        b"/t/na\xffme": b"n",
        b"/t/fifo": stat.S_IFIFO | 0o666,
    }
    said = copy(tree, "/t/", tmp_path)
    assert "1 symbolic links that lead out" in said
    assert "1 no files" in said
    got = tmp_path / "t"
    assert (got / "file").read_bytes() == b"x" * 3_000_000
    assert (got / "file").stat().st_mode & 0o7777 == 0o755
    assert (got / "file").stat().st_mtime == 1_000_000_000
    assert (got / "sub").stat().st_mode & 0o777 == 0o700
    assert (got / "sub/in").readlink() == Path("../file")
    assert (got / "sub/out").read_text() == "symbolic link to ../../file\n"
    assert sorted(os.fsencode(path.name) for path in got.iterdir()) == [
        b"empty",
        b"file",
        b"na\xffme",
        b"sub",
    ]
    # Copied again, over the files that exist now.
    assert copy(tree | {b"/t/file": b"new"}, "/t", tmp_path) == said
    assert (got / "file").read_bytes() == b"new"


def test_what_stands_in_the_way_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "f").write_text("precious")
    (tmp_path / "t").mkdir()
    (tmp_path / "t/folder").symlink_to(precious)
    (tmp_path / "t/file").symlink_to(precious / "f")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        copy({b"/t": None, b"/t/file": b"new", b"/t/folder": None, b"/t/folder/f": b"new"}, "/t", tmp_path)
    assert (precious / "f").read_text() == "precious"
    assert (tmp_path / "t/file").read_text() == "new"


def test_a_file_under_a_name_of_its_own_and_through_a_link(tmp_path: Path) -> None:
    tree = {b"/log": "logs/today", b"/logs/today": b"words", b"/": None, b"/logs": None}
    assert copy(tree, "/log", tmp_path / "mine") == ""
    assert (tmp_path / "mine").read_text() == "words"
    assert copy(tree, "/log", Path("/dev/null")) == ""
    assert Path("/dev/null").is_char_device()
    with pytest.raises(OSError, match="under which name"):
        copy(tree, "/", tmp_path)


def test_folders_without_end(tmp_path: Path) -> None:
    tree: dict[bytes, Any] = {b"/d" * depth: None for depth in range(1, 200)}
    assert "1 folders more than 100 levels deep" in copy(tree, "/d", tmp_path)
