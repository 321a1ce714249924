"""The store of artifacts in the cache: kernels, images, layers, and whatever else cells are run from.

An artifact is complete or absent. Two processes that need the same one make it once. None is removed while a
process uses it (core/uses.py).
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from quizmatrix.core import paths, uses
from quizmatrix.core.errors import DamagedError, UnpreparedError, host_error

T = TypeVar("T")


def key_of(made_of: Iterable[str], digits: int = 16) -> str:
    """A hash of everything that something is made of, as hexadecimal digits."""
    return hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:digits]


def name_of(path: Path) -> str:
    """The name of a file or folder in the cache, which is the same on every host. Of any other, its path.

    A folder of the cache may be a symlink to another disk.
    """
    cache = paths.cache_dir()
    if path.is_relative_to(whole := cache.resolve()):
        return str(path.relative_to(whole))
    for entry in cache.iterdir() if cache.is_dir() else ():
        if entry.is_symlink() and path.is_relative_to(real := entry.resolve()):
            return str(entry.name / path.relative_to(real))
    return str(path)


def path_of(name: str) -> Path:
    """The path of what `name_of` has named."""
    first, _, rest = name.partition("/")
    if not first:
        return Path(name)
    return _resolved(str(paths.cache_dir()), first) / rest


@functools.cache
def _resolved(cache: str, folder: str) -> Path:
    # Each cell asks for some ten names; a folder of the cache moves to no other disk meanwhile.
    return (Path(cache) / folder).resolve()


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """The artifacts of one kind. The kinds differ in nothing but this data.

    what: the word for one, in messages. folder: below the cache directory. The others are templates, in which
    {} is a key or a name. place: the artifact's path in the folder. record: the path of the file that
    describes it. reference: the path of the file that says which artifact a name stands for. lock: the name
    of the lock that a process holds while it makes an artifact. stays: seconds before `evict` removes it.
    """

    what: str
    folder: str
    place: str = "{}"
    record: str = "{}"
    reference: str = "refs/{}"
    lock: str = "{}"
    stays: float = 0.0

    @property
    def root(self) -> Path:
        """The folder of the store.

        Without symlinks: build trees and compilers keep paths, which have to hold however the cache is
        reached.
        """
        return (paths.cache_dir() / self.folder).resolve()

    def path(self, key: str) -> Path:
        """Where the artifact of this key is, or would be."""
        return self.root / self.place.format(key)

    def record_of(self, key: str) -> Path:
        """The path of an artifact's record."""
        return self.root / self.record.format(key)

    def reference_of(self, name: str) -> Path:
        """The path of the file that says which artifact a name stands for."""
        return self.root / self.reference.format(name)

    def stored(self) -> list[str]:
        """The keys of all artifacts that have their record, sorted."""
        found = _named(self.root, self.record)
        return sorted(key for key, _ in found if not key.startswith("."))

    def read(self, key: str, kind: type[T]) -> T | None:
        """An artifact's record; None if there is no artifact, DamagedError if the record cannot be read."""
        if not self.path(key).exists():
            return None
        try:
            return msgspec.json.decode(self.record_of(key).read_bytes(), type=kind)
        except (OSError, msgspec.MsgspecError) as error:
            raise DamagedError(
                f"the cached {self.what} in {self.path(key)} is damaged", cause=str(error)
            ) from error

    def locked(
        self, name: str, waiting: Callable[[], None] = lambda: None
    ) -> AbstractAsyncContextManager[None]:
        """Hold the lock of a name; `waiting` is called if another process holds it."""
        return paths.locked(paths.lock_file(self.lock.format(name)), waiting)

    async def get_or_make(
        self,
        key: str,
        make: Callable[[Path], Awaitable[None]],
        *,
        action: str,
        waiting: Callable[[], None],
        find: Callable[[str], object | None] | None = None,
        lock: str | None = None,
    ) -> Path:
        """The path of an artifact; `make` fills a new folder with it if it is missing.

        action: for the message of the HostError if the disk fails. waiting: is called if another process
        makes it. find: returns the artifact or None, and raises DamagedError if it has to be made again; by
        default the folder has to exist. lock: the name to lock, if that is not the key.
        """
        async with self.locked(lock or key, waiting):
            try:
                is_there = self.path(key).is_dir() if find is None else find(key) is not None
            except DamagedError:
                self.remove(key, state="damaged ")
                is_there = False
            if not is_there:
                try:
                    with paths.new_dir(self.path(key)) as made:
                        await make(made)
                except OSError as error:
                    raise host_error(action, error) from error
        return self.path(key)

    def write_reference(self, name: str, content: bytes) -> None:
        """Write which artifact a name stands for; HostError if that fails."""
        path = self.reference_of(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            paths.write_atomic(path, content)
        except OSError as error:
            raise host_error(f"write the {self.what} cache", error) from error

    def read_reference(self, name: str) -> bytes | None:
        """What was written last for a name; None if nothing was."""
        try:
            return self.reference_of(name).read_bytes()
        except OSError:
            return None

    def references(self) -> Iterator[tuple[str, bytes]]:
        """All names, sorted, and what was written for each."""
        for name, path in sorted(_named(self.root, self.reference)):
            with suppress(OSError):
                yield name, path.read_bytes()

    @contextmanager
    def removing(self, key: str, *, state: str = "") -> Iterator[None]:
        """Keep others from using an artifact within the block; HostError names the process that uses it."""
        with uses.removing(self.path(key), f"the {state}{self.what} {key}"):
            yield

    def remove(self, key: str, *, state: str = "") -> None:
        """Remove an artifact, damaged or not, if there is one; HostError names the process that uses it."""
        with self.removing(key, state=state):
            self.discard(self.path(key))

    def discard(self, path: Path) -> None:
        """Remove an artifact that nobody uses. It is renamed first: no half of it is ever seen."""
        doomed = path.with_name(f".{path.name}.removed")
        try:
            shutil.rmtree(doomed, ignore_errors=True)
            if doomed.exists():
                # A network file system keeps files that are open.
                doomed = path.with_name(f".{path.name}.{os.getpid()}.removed")
            path.rename(doomed)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UnpreparedError(
                f"the {self.what} in {path} could not be removed", cause=str(error)
            ) from error
        shutil.rmtree(doomed, ignore_errors=True)

    def evict(self, candidates: Iterable[Path]) -> None:
        """Remove those artifacts whose mtime is `stays` seconds ago and that nobody uses."""
        oldest = time.time() - self.stays
        for path in candidates:
            with suppress(FileNotFoundError, UnpreparedError):
                if path.stat().st_mtime < oldest:
                    with uses.unused(path) as nobody_uses_it:
                        if nobody_uses_it:
                            self.discard(path)


def _named(root: Path, template: str) -> list[tuple[str, Path]]:
    """The paths that fit a template, each with its {}."""
    before, after = template.split("{}")
    return [
        (str(path.relative_to(root)).removeprefix(before).removesuffix(after), path)
        for path in root.glob(f"{before}*{after}")
    ]
