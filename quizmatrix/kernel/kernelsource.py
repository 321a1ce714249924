"""What a source of kernels does. Each module of a source has one of these, as SOURCE."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from quizmatrix.core.process import Tell
from quizmatrix.core.version import KernelVersion
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import Arch


class KernelSource(msgspec.Struct, frozen=True, kw_only=True):
    """A place kernels come from.

    check: raises ValueError where the text behind `NAME:` can be none of its kernels. recipe: names
    what a kernel of it is made by. fetch: has that kernel in the cache for an architecture, and
    returns its key. is_local: whether that takes no network. is_built: whether it is built here.
    released: its releases between two kernels of it, or more, and what stands behind `NAME:` for
    each; None: it has none. example: what a person may write, where that is no version.
    """

    check: Callable[[str], str]
    recipe: Callable[[str, Arch], str]
    fetch: Callable[[str, Order], Awaitable[str]]
    is_local: Callable[[str], bool] = lambda _wanted: False
    is_built: bool = True
    example: str = ""
    released: Callable[[str, str, Arch, Tell], Awaitable[dict[KernelVersion, str]]] | None = None
