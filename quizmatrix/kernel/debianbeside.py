"""Finds what Debian packages beside a stored kernel: its headers, and its debug information."""

from __future__ import annotations

from quizmatrix.core.errors import NotInArchiveError
from quizmatrix.core.version import KernelVersion
from quizmatrix.debian import apt
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.order import Order
from quizmatrix.model.archive import load_archive


def version_of(kernel: Kernel) -> str:
    """The version of the package of Debian's that a kernel is, by Debian's numbers; empty if it is none."""
    image = f"linux-image-{kernel.record.release}"
    return next((text.split()[1] for text in kernel.record.packages if text.split()[0] == image), "")


async def find(kernel: Kernel, name: str, order: Order) -> tuple[apt.AptRoot, apt.Package]:
    """The package `name` in the version of the kernel's own package, and the suite that has it.

    `order.fetching` is held. Raises NotInArchiveError where no suite has it any more.
    """
    debian = order.arch.facts.debian
    version = version_of(kernel)
    series = KernelVersion(kernel.record.version).series
    suites = load_archive().suites_of(series, debian.arch) if debian else []

    async def ask(root: apt.AptRoot) -> tuple[apt.AptRoot, apt.Package] | None:
        shown = await root.show(name)
        return next(((root, package) for package in shown if package.version == version), None)

    found = await apt.ask_suites(suites, debian.arch if debian else "", order.tell, ask, is_first_enough=True)
    if not found:
        raise NotInArchiveError(
            f"Debian's archive no longer has {name} {version}",
            cause=f"asked: {', '.join(suites)}",
            next_step="Name the series instead of one version, or take a kernel that is built here: "
            f"debian-source:{series}",
        )
    return found[0]
