"""The kernel source `package`: a .deb or .rpm file of any distribution, or a folder of them.

The modules that read packages are imported only when a kernel has to be stored.
"""

from __future__ import annotations

from pathlib import Path

from quizmatrix.core.errors import UnpreparedError
from quizmatrix.core.store import key_of
from quizmatrix.kernel.kernelsource import KernelSource
from quizmatrix.kernel.order import Order
from quizmatrix.kernel.tree import absolute
from quizmatrix.model.arch import Arch
from quizmatrix.model.named import SUFFIXES


def check(wanted: str) -> str:
    """The absolute path of the file or folder. Raises ValueError where there is no package."""
    place = absolute(wanted)
    if not files_of(place):
        raise ValueError(
            f"there is no .deb or .rpm file in {place}" if place.is_dir() else f"no package {place}"
        )
    return str(place)


def files_of(place: Path) -> list[Path]:
    """The packages that a path names, sorted."""
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    return [file for file in files if file.suffix in SUFFIXES and file.is_file()]


def recipe(wanted: str, arch: Arch) -> str:
    """A text that names all that a stored kernel depends on; with the files' sizes and mtimes."""
    return recipe_of(files_of(Path(wanted)), arch)


def recipe_of(files: list[Path], arch: Arch) -> str:
    """The recipe of the kernel in these packages."""
    from quizmatrix.kernel import kernelstore

    states = [f"{file} {(now := file.stat()).st_size} {now.st_mtime_ns}" for file in files]
    return f"{kernelstore.recipe(arch)} {key_of(states)}"


async def fetch(wanted: str, order: Order) -> str:
    """Have the kernel in the packages in the cache; returns its key.

    Raises UnpreparedError where they are damaged, hostile, for another architecture, or lack something.
    """
    from quizmatrix.kernel import packages

    files = files_of(Path(wanted))
    if not files:
        raise UnpreparedError(f"there is no package in {wanted} any more")
    return await packages.store(files, order, where=wanted)


SOURCE = KernelSource(
    check=check,
    recipe=recipe,
    fetch=fetch,
    is_local=lambda _wanted: True,
    is_built=False,
    example="Write package:FILE, a .deb or .rpm file, or package:FOLDER, with those of its modules, too.",
)
