"""KernelSource: the interface of a kernel source. Each source's module has one, as SOURCE."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from quizmatrix.core.process import Tell
from quizmatrix.core.version import KernelVersion
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import Arch


class KernelSource(msgspec.Struct, frozen=True, kw_only=True):
    """A source of kernels. A new one is added to source.py, _MODULES.

    check: takes the text after `NAME:`, returns it in full, and raises ValueError where it is wrong. recipe:
    returns a text that changes when the kernel has to be made again. fetch: stores the kernel in the cache
    and returns its key. is_local: whether a kernel needs no network. is_built: whether kernels are built
    here. released: returns the releases between two kernels, or more, each with the text after `NAME:`; None:
    the source has no releases. example: what a user may write, where that is no version.
    """

    check: Callable[[str], str]
    recipe: Callable[[str, Arch], str]
    fetch: Callable[[str, Order], Awaitable[str]]
    is_local: Callable[[str], bool] = lambda _wanted: False
    is_built: bool = True
    example: str = ""
    released: Callable[[str, str, Arch, Tell], Awaitable[dict[KernelVersion, str]]] | None = None
