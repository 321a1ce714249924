"""The kernel source `installed`: a kernel of this machine, by default the running one."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from quizmatrix.core.errors import UnpreparedError
from quizmatrix.core.process import Tell
from quizmatrix.core.version import series_of
from quizmatrix.kernel.kernelsource import AvailableKernel, KernelSource
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import Arch


def _check(root: Path, wanted: str) -> str:
    """The release: `wanted`, the running one, or the newest. Raises ValueError where there is none."""
    from quizmatrix.kernel import kernelfiles

    releases = kernelfiles.releases_in(root)
    if not releases:
        raise ValueError("this machine has no kernel in /boot or /lib/modules, with its modules")
    running = os.uname().release
    release = wanted or (running if running in releases else releases[0])
    if release not in releases:
        raise ValueError(f"this machine has {', '.join(releases)}")
    return release


def _recipe(root: Path, release: str, arch: Arch) -> str:
    from quizmatrix.core.checksum import state_of
    from quizmatrix.kernel import kernelfiles, kernelstore

    found = kernelfiles.look(root, "this machine", release)
    now = found.image.stat()
    state = state_of(found.modules) if found.modules is not None else ""
    return f"{kernelstore.recipe(arch)} {now.st_size} {now.st_mtime_ns} {state}"


async def _fetch(root: Path, release: str, order: Order) -> str:
    from quizmatrix.kernel import kernelfiles, kernelstore

    if not order.arch.is_native:
        raise UnpreparedError(
            f"this machine's own kernel is not for {order.arch.name}",
            cause=f"it is a {os.uname().machine}",
            next_step="Name it for this machine's architecture: installed-native.",
        )
    async with order.fetching:
        found = kernelfiles.look(root, "this machine", release)
        return await kernelstore.store_in_place(found, root, order, where=f"installed:{release}")


async def _available(root: Path, series: str, arches: list[Arch], _tell: Tell) -> list[AvailableKernel]:
    from quizmatrix.kernel import kernelfiles

    releases = kernelfiles.releases_in(root)
    native = [arch.name for arch in arches if arch.is_native]
    if not releases or not native:
        return []
    default = _check(root, "")
    return [
        AvailableKernel(
            kernel="installed" if release == default else f"installed:{release}",
            version=release,
            arches=tuple(native),
            origin="this machine",
        )
        for release in releases
        if series in ("", series_of(release))
    ]


def source_in(root: Path) -> KernelSource:
    """The source of the kernels that are installed in a root folder."""
    return KernelSource(
        check=partial(_check, root),
        recipe=partial(_recipe, root),
        fetch=partial(_fetch, root),
        is_local=lambda _wanted: True,
        is_built=False,
        available=partial(_available, root),
        example="Write installed, or installed:RELEASE. A machine without one: package:FILE, files:FOLDER, "
        "or a kernel of Debian's, as 6.1.",
    )


SOURCE = source_in(Path("/"))
