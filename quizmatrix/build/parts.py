"""Builds the parts that many cells need, each part once, and installs them for all their kernels together."""

from __future__ import annotations

import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import anyio
import msgspec

from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.core.store import Store
from quizmatrix.kernel import buildlayer
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.model.cells import Cell, debian_suite


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What was installed of a part. layer: laid out like a guest's root. runtime: the libraries that a
    guest of the small image needs beside it. was_reused: whether nothing had to be done.
    """

    layer: Path
    runtime: Path | None = None
    was_reused: bool = False


R = TypeVar("R")

# Seconds for which a layer stays that another has taken the place of. Guests have hard links of it.
STAYS = 3600.0


class Done(StrEnum):
    """What became of a part."""

    BUILT = "built"
    REUSED = "reused"
    FAILED = "failed"
    NOT_TRIED = "-"


class PartResult(msgspec.Struct, frozen=True, kw_only=True):
    """One part's. seconds: from its start to its end, waiting included."""

    done: Done = Done.NOT_TRIED
    seconds: float = 0.0
    built: Built | None = None
    error: QuizmatrixError | None = None


# Hears what is going on with which part or cell.
TellOf = Callable[[str, str], None]


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """What is installed of a part: layers in a store, each of one state of what it is made of. None of them
    changes any more; the store refers to the current one.
    """

    part: str
    store: Store

    def layer(self, state: str) -> Path:
        """What is installed of a state, or would be."""
        return self.store.path(f"{self.part}-{state}")

    def is_current(self, state: str) -> bool:
        """Whether the last that was installed is of this state, and is still there."""
        return self._last() == self.layer(state).name and self.layer(state).is_dir()

    def replace(self, state: str) -> None:
        """Make this the current state.

        Earlier ones go, but for the last, the recent, which another run may be about to join, those that the
        guests of any kernel still get, and what somebody is joining.
        """
        used = buildlayer.layers_in_use()
        keep = {self.layer(state).name, self._last()}
        self.store.evict(
            path
            for path in self.layer("").parent.glob(f"{self.part}-????????????????*")
            if path.name.removesuffix(".runtime") not in keep and str(path) not in used
        )
        self.store.write_reference(self.part, self.layer(state).name.encode())

    def _last(self) -> str:
        try:
            # An earlier quizmatrix wrote the state behind the name.
            return (self.store.read_reference(self.part) or b"").decode().split()[0]
        except (IndexError, UnicodeDecodeError):
            return ""


async def joined(kernel: Kernel, cell: Cell, result: PartResult) -> PartResult:
    """Join a part that was built with all else that the kernel's guests get; its result, or why that failed.

    Now, and not when the first guest of the cell waits for it.
    """
    try:
        await buildlayer.obtain(kernel, with_runtime=debian_suite(cell.image) is None)
    except QuizmatrixError as error:
        return PartResult(done=Done.FAILED, seconds=result.seconds, error=error)
    return result


def forget(top: Path, part: str) -> None:
    """Remove what was built of the part of this name, in whatever folder below `top`."""
    for path in (*top.glob(f"*/{part}*"), *top.glob(f"*/layers/{part}-*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


async def of_each(cells: Sequence[Cell], build: Callable[[Cell], Awaitable[R]]) -> list[R]:
    """What `build` gives for every cell, all at once; in their order."""
    found: dict[str, R] = {}

    async def one(cell: Cell) -> None:
        found[cell.id] = await build(cell)

    async with task_group() as group:
        for cell in cells:
            group.start_soon(one, cell)
    return [found[cell.id] for cell in cells]


class Parts:
    """The parts of one command; who wants one that another is building waits for it."""

    def __init__(self, at_a_time: int) -> None:
        """at_a_time: parts that are built at the same time."""
        self._limit = anyio.CapacityLimiter(at_a_time)
        self._locks: dict[str, anyio.Lock] = {}
        self._results: dict[str, PartResult] = {}

    async def once(self, name: str, make: Callable[[], Awaitable[Built | None]]) -> PartResult:
        """What became of the part of this name, which `make` builds if nobody has yet."""
        async with self.lock(name):
            if name not in self._results:
                async with self._limit:
                    self._results[name] = await _timed(make)
            return self._results[name]

    def lock(self, name: str) -> anyio.Lock:
        """Held by who makes what has this name."""
        return self._locks.setdefault(name, anyio.Lock())


async def _timed(make: Callable[[], Awaitable[Built | None]]) -> PartResult:
    began = time.monotonic()
    try:
        built = await make()
    except QuizmatrixError as error:
        return PartResult(done=Done.FAILED, seconds=time.monotonic() - began, error=error)
    done = Done.REUSED if built is not None and built.was_reused else Done.BUILT
    return PartResult(done=done, seconds=time.monotonic() - began, built=built)
