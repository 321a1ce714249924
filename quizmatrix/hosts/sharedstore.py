"""A folder with blobs that all hosts of a cluster reach (`run --store`): a path, or a URL of fsspec's."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio

from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import NotFetchedError, UsageError
from quizmatrix.core.text import clean_line
from quizmatrix.hosts import blobs

T = TypeVar("T")

_CHUNK = 1 << 22

# Seconds that one step may take: a server, or a file system of the network, may never answer. And how long a
# worker does without a store that could not be opened.
_LIMIT = 60.0
_PAUSE = 300.0

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.ASCII | re.IGNORECASE)


class SharedStore:
    """The folder."""

    def __init__(self, url: str) -> None:
        """url: see `absolute`. Raises UsageError where it cannot be opened here; that may take long."""
        import fsspec

        self.url = url
        if "::" in url:
            raise UsageError(f"--store {url}", cause="it goes through another URL")
        try:
            found: tuple[Any, str] = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise UsageError(
                f"--store {url}", cause=str(error), next_step="Install that on all hosts."
            ) from error
        except Exception as error:  # each of its kinds has errors of its own
            raise UsageError(f"--store {url}", cause=_words(error)) from error
        self._files, self._top = found
        if self._is_local:
            with suppress(OSError):
                # A work tree has what its owner's umask hid. Whoever wants to share it makes the folder.
                Path(url).mkdir(mode=0o700)

    async def fetch(self, digest: str, target: Path) -> None:
        """Fetch a blob to a path; what is there already is its beginning. NotFetchedError if that fails."""
        there = target.stat().st_size if target.exists() else 0
        try:
            source = await _within_limit(partial(self._open, digest, there))
            try:
                with target.open("ab") as file:
                    # Only this task writes: a thread that hangs and is given up does not.
                    while data := await _within_limit(partial(source.read, _CHUNK)):
                        file.write(data)
            finally:
                with suppress(Exception):
                    await _within_limit(source.close)
        except Exception as error:
            raise NotFetchedError(
                f"{digest[:12]} could not be fetched from {self.url}", cause=_words(error)
            ) from error

    def _open(self, digest: str, offset: int) -> Any:
        path = self._path(digest)
        if self._is_local and not Path(path).is_file():
            raise OSError(f"{path} is no file")
        source = self._files.open(path, "rb")
        source.seek(offset)
        return source

    @property
    def _is_local(self) -> bool:
        return not _SCHEME.match(self.url)

    async def put(self, digests: Iterable[str]) -> None:
        """Add those of our blobs that it lacks. Raises NotFetchedError where it cannot be written."""
        for digest in digests:
            try:
                await self._put(blobs.BLOBS.path(digest), self._path(digest))
            except Exception as error:
                raise NotFetchedError(f"{self.url} cannot be written", cause=_words(error)) from error

    async def _put(self, source: Path, target: str) -> None:
        if await _within_limit(partial(self._has, target, source.stat().st_size)):
            return
        # Only what has come whole gets its name.
        part = f"{target}.{secrets.token_hex(4)}"
        try:
            await _within_limit(partial(self._files.makedirs, target.rpartition("/")[0], exist_ok=True))
            into = await _within_limit(partial(self._files.open, part, "wb"))
            with source.open("rb") as file:
                while data := file.read(_CHUNK):
                    await _within_limit(partial(into.write, data))
            await _within_limit(into.close)
            await _within_limit(partial(self._files.mv, part, target))
        except BaseException:
            with anyio.CancelScope(shield=True), suppress(Exception):
                await _within_limit(partial(self._files.rm_file, part))
            raise

    def _has(self, target: str, size: int) -> bool:
        # One that is cut off is written anew; one that is damaged in another way stays, and hosts ask us.
        return bool(self._files.exists(target)) and self._files.size(target) == size

    def _path(self, digest: str) -> str:
        # Some file systems become slow where a folder has many files.
        return f"{self._top.rstrip('/')}/{digest[:2]}/{digest}"


class SharedStores:
    """The stores that a worker was told of. One that cannot be opened is left alone for a while."""

    def __init__(self) -> None:
        self._opened: dict[str, SharedStore] = {}
        self._failed: dict[str, float] = {}

    async def fetches(self, url: str) -> list[Callable[[str, Path], Any]]:
        """Fetches blobs from the store; empty where there is none, or it cannot be opened here."""
        if not url or anyio.current_time() < self._failed.get(url, 0.0):
            return []
        if url not in self._opened:
            try:
                self._opened[url] = await _within_limit(partial(SharedStore, url))
            except (UsageError, TimeoutError):
                self._failed[url] = anyio.current_time() + _PAUSE
                return []
        return [partial(self._fetch, self._opened[url])]

    async def _fetch(self, store: SharedStore, digest: str, target: Path) -> None:
        if anyio.current_time() < self._failed.get(store.url, 0.0):
            raise NotFetchedError(f"{store.url} did not answer")
        try:
            await store.fetch(digest, target)
        except NotFetchedError as error:
            if isinstance(error.__cause__, TimeoutError):
                self._failed[store.url] = anyio.current_time() + _PAUSE
            raise


async def _within_limit(work: Callable[[], T]) -> T:
    """Call `work` in a thread; TimeoutError where that takes too long."""
    with anyio.fail_after(_LIMIT):
        return await in_thread(work)


def absolute(text: str) -> str:
    """What --store says, for other hosts: a URL as it is, a path as an absolute one."""
    return text if _SCHEME.match(text) else str(Path(text).expanduser().absolute())


def _words(error: Exception) -> str:
    return clean_line(str(error) or type(error).__name__)
