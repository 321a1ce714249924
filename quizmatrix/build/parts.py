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
from quizmatrix.core.once import OncePerKey
from quizmatrix.core.process import Tell
from quizmatrix.core.store import Store
from quizmatrix.kernel import buildlayer
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.model.cells import Cell, debian_suite


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """An installed part.

    layer: the folder, laid out like a guest's root. runtime: a folder with the libraries that a guest with
    the small image needs. was_reused: whether the part was up to date already.
    """

    layer: Path
    runtime: Path | None = None
    was_reused: bool = False


R = TypeVar("R")

# Seconds for which a replaced layer stays. Guests do not need it: they have hard links to its files.
STAYS = 3600.0


class Done(StrEnum):
    """The result of building a part."""

    BUILT = "built"
    REUSED = "reused"
    NOT_FOR_KERNEL = "not for this kernel"
    FAILED = "failed"
    NOT_TRIED = "-"


class NotForThisKernel(Exception):  # noqa: N818 - it is no error
    """A part is not to be built for this kernel: it says so itself. Its text is why."""


class PartResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of building one part.

    seconds: how long it took, including waiting. why: the reason where it is not for this kernel.
    """

    done: Done = Done.NOT_TRIED
    seconds: float = 0.0
    built: Built | None = None
    error: QuizmatrixError | None = None
    why: str = ""


# A callback for progress messages: the name of a part or cell, and the message.
TellOf = Callable[[str, str], None]


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """The installed layers of a part, one for each state of its inputs. A layer never changes.

    store: keeps the layers, and a reference to the current one.
    """

    part: str
    store: Store

    @property
    def is_begun(self) -> bool:
        """Whether it was installed once."""
        return self.store.reference_of(self.part).is_file()

    def layer(self, state: str) -> Path:
        """The folder of a state's layer, whether it exists or not."""
        return self.store.path(f"{self.part}-{state}")

    def is_current(self, state: str) -> bool:
        """Whether the current layer is of this state, and still exists."""
        return self._last() == self.layer(state).name and self.layer(state).is_dir()

    def replace(self, state: str) -> None:
        """Make this the current state, and remove old layers.

        Some old layers stay: the last one, recent ones, which another run may be about to join, those that
        the guests of any kernel still get, and those that another process uses.
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
            # An earlier quizmatrix wrote the state after the name.
            return (self.store.read_reference(self.part) or b"").decode().split()[0]
        except (IndexError, UnicodeDecodeError):
            return ""


async def join_layers(
    kernel: Kernel, cell: Cell, result: PartResult, tell: Tell, tree: Path | None = None
) -> PartResult:
    """Join the kernel's build layers now, so that the cell's first guest does not wait for that.

    tree: the work tree in which that will be. Returns `result` with the time that this took, or a failure
    where the layers cannot be joined.
    """
    began = time.monotonic()
    if result.done is Done.BUILT:
        # For a ready-made kernel, depmod(8) reads thousands of modules.
        tell("indexing the modules of its guests")
    try:
        await buildlayer.obtain(kernel, tree, with_runtime=debian_suite(cell.image) is None)
    except QuizmatrixError as error:
        return PartResult(done=Done.FAILED, seconds=result.seconds, error=error)
    return msgspec.structs.replace(result, seconds=result.seconds + time.monotonic() - began)


def forget(top: Path, part: str) -> None:
    """Remove all that was built of the part with this name, below `top`."""
    for path in (*top.glob(f"*/{part}*"), *top.glob(f"*/layers/{part}-*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


async def for_each_cell(cells: Sequence[Cell], build: Callable[[Cell], Awaitable[R]]) -> list[R]:
    """Call `build` for all cells at the same time; returns the results in the order of the cells."""
    found: dict[str, R] = {}

    async def one(cell: Cell) -> None:
        found[cell.id] = await build(cell)

    async with task_group() as group:
        for cell in cells:
            group.start_soon(one, cell)
    return [found[cell.id] for cell in cells]


class Parts:
    """The parts that one command builds, each once: a second request for a part waits for the first."""

    def __init__(self, at_a_time: int) -> None:
        """at_a_time: how many parts are built at the same time."""
        self._limit = anyio.CapacityLimiter(at_a_time)
        self._results = OncePerKey()

    async def once(self, name: str, make: Callable[[], Awaitable[Built | None]]) -> PartResult:
        """The result of building the part of this name; calls `make` only the first time."""

        async def limited() -> PartResult:
            async with self._limit:
                return await _timed(make)

        return await self._results.get(name, limited)

    def lock(self, name: str) -> anyio.Lock:
        """The lock that is held while the part of this name is built."""
        return self._results.lock(name)


async def _timed(make: Callable[[], Awaitable[Built | None]]) -> PartResult:
    began = time.monotonic()
    try:
        built = await make()
    except NotForThisKernel as reason:
        return PartResult(done=Done.NOT_FOR_KERNEL, seconds=time.monotonic() - began, why=str(reason))
    except QuizmatrixError as error:
        return PartResult(done=Done.FAILED, seconds=time.monotonic() - began, error=error)
    done = Done.REUSED if built is not None and built.was_reused else Done.BUILT
    return PartResult(done=done, seconds=time.monotonic() - began, built=built)
