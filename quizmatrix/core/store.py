"""The store of what cells are run from: artifacts in the cache.

An artifact is there whole or not at all, two processes make it once, and nobody removes what another one
holds (see uses).
"""

from __future__ import annotations

import hashlib
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
    """A hash of all that something is made of."""
    return hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:digits]


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """The artifacts of one kind.

    what: what a person calls one. folder: below the cache directory. place: of an artifact in that folder;
    record: of the file that describes it, without which it is not whole; reference: of the file in which a
    name stands for an artifact; in each {} is the key or the name. lock: the name of the lock for who makes
    it. stays: seconds for which an artifact is kept that nothing refers to any more.
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
        """The folder of the store."""
        return paths.cache_dir() / self.folder

    def path(self, key: str) -> Path:
        """Where the artifact of this key is, or would be."""
        return self.root / self.place.format(key)

    def record_of(self, key: str) -> Path:
        """The file that describes an artifact."""
        return self.root / self.record.format(key)

    def reference_of(self, name: str) -> Path:
        """The file that says what a name stands for."""
        return self.root / self.reference.format(name)

    def stored(self) -> list[str]:
        """The keys of all artifacts, sorted."""
        found = _named(self.root, self.record)
        return sorted(key for key, _ in found if not key.startswith("."))

    def read(self, key: str, kind: type[T]) -> T | None:
        """The record of an artifact; None where it is not there, DamagedError where it cannot be read."""
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
        """Held by who makes what has this name; `waiting` is called where another process does."""
        return paths.locked(paths.lock_file(self.lock.format(name)), waiting)

    async def once(
        self,
        key: str,
        make: Callable[[Path], Awaitable[None]],
        *,
        action: str,
        waiting: Callable[[], None],
        find: Callable[[str], object | None] | None = None,
        lock: str | None = None,
    ) -> Path:
        """The artifact of this key; where it is not there, `make` makes it in a new folder.

        action: what is being done, for the HostError where the disk does not take it. find: gives the
        artifact or None, DamagedError where it has to be made anew; by default its folder is enough. lock:
        the name to lock, if not the key.
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

    def refer(self, name: str, content: bytes) -> None:
        """Have a name stand for an artifact from now on; HostError where that cannot be written."""
        path = self.reference_of(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            paths.write_atomic(path, content)
        except OSError as error:
            raise host_error(f"write the {self.what} cache", error) from error

    def referred(self, name: str) -> bytes | None:
        """What was said last of a name; None where nothing was."""
        try:
            return self.reference_of(name).read_bytes()
        except OSError:
            return None

    def references(self) -> Iterator[tuple[str, bytes]]:
        """All names, sorted, with what was said of each."""
        for name, path in sorted(_named(self.root, self.reference)):
            with suppress(OSError):
                yield name, path.read_bytes()

    @contextmanager
    def removing(self, key: str, *, state: str = "") -> Iterator[None]:
        """Nobody uses an artifact, or begins to before the block's end; HostError says who does."""
        with uses.removing(self.path(key), f"the {state}{self.what} {key}"):
            yield

    def remove(self, key: str, *, state: str = "") -> None:
        """Remove an artifact, damaged or not, if it is there; HostError says who uses it."""
        with self.removing(key, state=state):
            self.discard(self.path(key))

    def discard(self, path: Path) -> None:
        """Remove an artifact that nobody uses. It is gone at once: a half of it would be taken for whole."""
        doomed = path.with_name(f".{path.name}.removed")
        try:
            shutil.rmtree(doomed, ignore_errors=True)
            path.rename(doomed)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UnpreparedError(
                f"the {self.what} in {path} could not be removed", cause=str(error)
            ) from error
        shutil.rmtree(doomed, ignore_errors=True)

    def evict(self, needless: Iterable[Path]) -> None:
        """Remove those of some needless artifacts that have been kept long enough and that nobody uses."""
        oldest = time.time() - self.stays
        for path in needless:
            with suppress(FileNotFoundError, UnpreparedError):
                if path.stat().st_mtime < oldest:
                    with uses.unused(path) as nobody_uses_it:
                        if nobody_uses_it:
                            self.discard(path)


def _named(root: Path, template: str) -> list[tuple[str, Path]]:
    """The files that a template fits, each with what stands for {}."""
    before, after = template.split("{}")
    return [
        (str(path.relative_to(root)).removeprefix(before).removesuffix(after), path)
        for path in root.glob(f"{before}*{after}")
    ]
