"""The kernel source `debian`: Debian's ready-made kernels.

The module that fetches them is imported only when a kernel has to be fetched.
"""

from __future__ import annotations

from quizmatrix.core.process import Tell
from quizmatrix.core.version import KernelVersion
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.debianversions import check_version, recipe
from quizmatrix.kernel.kernelsource import AvailableKernel, KernelSource
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import Arch


async def _fetch(wanted: str, order: Order) -> str:
    from quizmatrix.kernel import debianpackages

    return await debianpackages.fetch(wanted, order)


async def _released(one: str, other: str, arch: Arch, tell: Tell) -> dict[KernelVersion, str]:
    from quizmatrix.kernel import debianpackages

    return await debianpackages.released(one, other, arch, tell)


async def _available(series: str, arches: list[Arch], tell: Tell) -> list[AvailableKernel]:
    from quizmatrix.kernel import debianavailable

    return await debianavailable.ready_made(series, arches, tell)


async def _build_tree(kernel: Kernel, order: Order) -> None:
    from quizmatrix.kernel import headers

    await headers.obtain(kernel, order)


SOURCE = KernelSource(
    check=check_version,
    recipe=recipe,
    fetch=_fetch,
    is_built=False,
    build_tree=_build_tree,
    released=_released,
    available=_available,
)
