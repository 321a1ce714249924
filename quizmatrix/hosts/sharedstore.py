"""A folder with blobs that all hosts of a cluster reach (`run --store`): a path, or a URL of fsspec's."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import NotFetchedError, UsageError
from quizmatrix.core.text import clean_line
from quizmatrix.hosts import blobs

_CHUNK = 1 << 22

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.ASCII | re.IGNORECASE)


class SharedStore:
    """The folder. Raises UsageError where its URL cannot be opened here."""

    def __init__(self, url: str) -> None:
        """url: see `absolute`."""
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

    async def fetch(self, digest: str, target: Path) -> None:
        """Fetch a blob to a path; what is there already is its beginning. NotFetchedError if that fails."""
        await in_thread(partial(self._fetch, digest, target))

    def _fetch(self, digest: str, target: Path) -> None:
        there = target.stat().st_size if target.exists() else 0
        try:
            with self._files.open(self._path(digest), "rb") as source, target.open("ab") as file:
                source.seek(there)
                while data := source.read(_CHUNK):
                    file.write(data)
        except Exception as error:
            raise NotFetchedError(
                f"{digest[:12]} could not be fetched from {self.url}", cause=_words(error)
            ) from error

    async def put(self, digests: Iterable[str]) -> None:
        """Add those of our blobs that it lacks. Raises NotFetchedError where it cannot be written."""
        for digest in digests:
            await in_thread(partial(self._put, digest))

    def _put(self, digest: str) -> None:
        target = self._path(digest)
        # Only what has come whole gets its name.
        part = f"{target}.{secrets.token_hex(4)}"
        try:
            if self._files.exists(target):
                return
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            try:
                self._files.put_file(str(blobs.BLOBS.path(digest)), part)
                self._files.mv(part, target)
            except BaseException:
                with suppress(Exception):
                    self._files.rm_file(part)
                raise
        except Exception as error:
            raise NotFetchedError(f"{self.url} cannot be written", cause=_words(error)) from error

    def _path(self, digest: str) -> str:
        # Some file systems become slow where a folder has many files.
        return f"{self._top.rstrip('/')}/{digest[:2]}/{digest}"


def absolute(text: str) -> str:
    """What --store says, for other hosts: a URL as it is, a path as an absolute one."""
    return text if _SCHEME.match(text) else str(Path(text).expanduser().absolute())


def _words(error: Exception) -> str:
    return clean_line(str(error) or type(error).__name__)
