"""The kernel source `files`: a folder with an image and lib/modules/RELEASE."""

from __future__ import annotations

from pathlib import Path

from quizmatrix.kernel.kernelsource import KernelSource
from quizmatrix.kernel.order import Order
from quizmatrix.kernel.tree import absolute
from quizmatrix.model.arch import Arch


def check(wanted: str) -> str:
    """The absolute path of the folder. Raises ValueError where there is none."""
    place = absolute(wanted)
    if not place.is_dir():
        raise ValueError(f"there is no folder {place}")
    return str(place)


def recipe(wanted: str, arch: Arch) -> str:
    """A text that names all that a stored kernel depends on; with the state of the folder's files."""
    from quizmatrix.core.checksum import state_of
    from quizmatrix.kernel import kernelfiles, kernelstore

    root = Path(wanted)
    text = f"{kernelstore.recipe(arch)} {state_of(root)}"
    # They may be symlinks that lead out.
    found = kernelfiles.look(root, wanted)
    for path in filter(None, (found.image, found.config)):
        now = path.stat()
        text += f" {now.st_size} {now.st_mtime_ns}"
    if found.modules is not None and not found.modules.resolve().is_relative_to(root.resolve()):
        text += f" {state_of(found.modules)}"
    return text


async def fetch(wanted: str, order: Order) -> str:
    """Have the kernel in the folder in the cache; returns its key.

    Raises UnpreparedError where it is for another architecture or lacks something, UsageError where the
    folder has no kernel, or several.
    """
    from quizmatrix.kernel import kernelfiles, kernelstore

    root = Path(wanted)
    async with order.fetching:
        return await kernelstore.store_in_place(kernelfiles.look(root, wanted), root, order, where=wanted)


SOURCE = KernelSource(
    check=check,
    recipe=recipe,
    fetch=fetch,
    is_local=lambda _wanted: True,
    is_built=False,
    example="Write files:FOLDER; the folder has vmlinuz and lib/modules/RELEASE.",
)
