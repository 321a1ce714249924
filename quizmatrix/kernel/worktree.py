"""The kernel source `path`: the user's source tree, built out of tree and never written to."""

from __future__ import annotations

from pathlib import Path

from quizmatrix.core import checksum
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.kernel import build
from quizmatrix.kernel.kernelsource import KernelSource
from quizmatrix.kernel.order import Order
from quizmatrix.kernel.tree import KernelTree, absolute, read_version
from quizmatrix.model.arch import Arch


def check(wanted: str) -> str:
    """The absolute path of the folder. Raises ValueError where it is no kernel source."""
    folder = absolute(wanted)
    read_version(folder)
    return str(folder)


def recipe(wanted: str, arch: Arch) -> str:
    """A text that names all that a build depends on; with the state of the tree."""
    return f"{build.recipe(wanted, arch)} {checksum.state_of(Path(wanted))}"


async def fetch(wanted: str, order: Order) -> str:
    """Build the kernel in the tree, unless the cache has it; returns its key.

    Raises UnpreparedError where that fails.
    """
    path = Path(wanted)
    try:
        version = read_version(path)
    except ValueError as error:
        raise UnpreparedError(str(error)) from error
    tree = KernelTree(
        path=path,
        version=version,
        key=checksum.state_of(path),
        origin=str(path),
        work=build.shared_build_folder(path, order),
    )
    return await build.build(tree, order)


SOURCE = KernelSource(
    check=check,
    recipe=recipe,
    fetch=fetch,
    is_local=lambda _wanted: True,
    example="Write path:FOLDER, the top folder of a kernel's source.",
)
