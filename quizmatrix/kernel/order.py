"""An order for a kernel: its architecture and build options, and a callback for progress messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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
    """What differs from the default build: a variant, configuration lines, the compiler."""

    variant: str | None = None
    config: tuple[str, ...] = ()
    clang: bool = False


DEFAULT = KernelOptions()


def options_of(cell: Cell) -> KernelOptions:
    """The options with which a cell's kernel is built."""
    return KernelOptions(variant=cell.variant, config=cell.config, clang=cell.clang)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """How a kernel is to be fetched or built.

    tell: is called with progress messages. jobs: the number of compilers at a time; None: the number of this
    process's CPUs. pool: takes the place of jobs. fetches: limits how many kernels are fetched or unpacked at
    a time, since they share one network and disk. needs_tree: modules are built against the kernel; it is
    built again if its build tree is gone. is_replacing: the cache has an earlier kernel, which stays if no
    newer one can be fetched. is_offline: nothing may be fetched from a network. elsewhere: builds a kernel,
    whose name is given in full, on another host, stores it here, and returns its key.
    """

    arch: Arch
    options: KernelOptions = DEFAULT
    tell: Tell
    jobs: int | None = None
    pool: JobServer | None = None
    fetches: anyio.CapacityLimiter | None = None
    needs_tree: bool = False
    is_replacing: bool = False
    is_offline: bool = False
    elsewhere: Callable[[str, Order], Awaitable[str]] | None = None

    @property
    def fetching(self) -> AbstractAsyncContextManager[None]:
        """Held while a source is fetched or unpacked, but not while waiting for another build."""
        return self.fetches or nullcontext()
