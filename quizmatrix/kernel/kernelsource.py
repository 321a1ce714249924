"""KernelSource: the interface of a kernel source. Each source's module has one, as SOURCE."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from quizmatrix.core.process import Tell
from quizmatrix.core.version import KernelVersion
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import Arch


class AvailableKernel(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel that can be had. kernel: what a user types for it. version: the one that this means now.

    arches: the architectures; empty for all. origin: where it comes from, for a person. is_built: whether it
    is built here.
    """

    kernel: str
    version: str
    arches: tuple[str, ...] = ()
    origin: str
    is_built: bool = False


class KernelSource(msgspec.Struct, frozen=True, kw_only=True):
    """A source of kernels. A new one is added to source.py, _MODULES.

    check: takes the text after `NAME:`, returns it in full, and raises ValueError where it is wrong. recipe:
    returns a text that changes when the kernel has to be made again. fetch: stores the kernel in the cache
    and returns its key. is_local: whether a kernel needs no network. is_built: whether kernels are built
    here. build_tree: makes the build tree of a stored kernel that was not built here, in buildtree.TREES;
    raises NotInArchiveError where it is not to be had any more. None: only `fetch` makes it, where the order
    needs it. released: returns the releases between two kernels, or more, each with the text after `NAME:`;
    None: the source has no releases. available: returns the kernels that can be had now: all of a series, or,
    if that is empty, the newest of each; of architectures that it has ready-made, only those given. None: the
    source cannot tell. example: what a user may write, where that is no version.
    """

    check: Callable[[str], str]
    recipe: Callable[[str, Arch], str]
    fetch: Callable[[str, Order], Awaitable[str]]
    is_local: Callable[[str], bool] = lambda _wanted: False
    is_built: bool = True
    example: str = ""
    build_tree: Callable[[Kernel, Order], Awaitable[None]] | None = None
    released: Callable[[str, str, Arch, Tell], Awaitable[dict[KernelVersion, str]]] | None = None
    available: Callable[[str, list[Arch], Tell], Awaitable[list[AvailableKernel]]] | None = None
