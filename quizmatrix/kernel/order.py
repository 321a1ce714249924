"""An order for a kernel: the architecture, what is built otherwise than by default, and who hears of it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING

import anyio
import msgspec

from quizmatrix.core.process import Tell
from quizmatrix.model.arch import Arch
from quizmatrix.model.cells import Cell

if TYPE_CHECKING:
    from quizmatrix.core.jobserver import JobServer


class KernelOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is built otherwise than by default: a variant, lines of configuration, the compiler."""

    variant: str | None = None
    config: tuple[str, ...] = ()
    clang: bool = False


DEFAULT = KernelOptions()


def options_of(cell: Cell) -> KernelOptions:
    """How the kernel of a cell is built."""
    return KernelOptions(variant=cell.variant, config=cell.config, clang=cell.clang)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """For whom a kernel is had: its architecture and options, and who hears how far it is.

    jobs: processes that compile at a time; None: as many as this process has CPUs. pool: or those of a pool.
    fetches: lets in who fetches or unpacks a source: many at a time only share the network and the disk.
    needs_tree: whether modules are to be built against it: where its build tree is gone, it is built again.
    is_replacing: whether the cache has what the source said earlier; that stays where no newer comes.
    """

    arch: Arch
    options: KernelOptions = DEFAULT
    tell: Tell
    jobs: int | None = None
    pool: JobServer | None = None
    fetches: anyio.CapacityLimiter | None = None
    needs_tree: bool = False
    is_replacing: bool = False

    @property
    def fetching(self) -> AbstractAsyncContextManager[None]:
        """Held by whoever fetches or unpacks a source, but not by who waits for another build."""
        return self.fetches or nullcontext()
