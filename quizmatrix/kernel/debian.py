"""The kernel source `debian`: Debian's ready-made kernels.

The module that fetches them is imported only when a kernel has to be fetched.
"""

from __future__ import annotations

from quizmatrix.core.process import Tell
from quizmatrix.core.version import KernelVersion
from quizmatrix.kernel.debianversions import check_version, recipe
from quizmatrix.kernel.kernelsource import KernelSource
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import Arch


async def _fetch(wanted: str, order: Order) -> str:
    from quizmatrix.kernel import debianpackages

    return await debianpackages.fetch(wanted, order)


async def _released(one: str, other: str, arch: Arch, tell: Tell) -> dict[KernelVersion, str]:
    from quizmatrix.kernel import debianpackages

    return await debianpackages.released(one, other, arch, tell)


SOURCE = KernelSource(check=check_version, recipe=recipe, fetch=_fetch, is_built=False, released=_released)
