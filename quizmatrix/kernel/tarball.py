"""The kernel source `tarball`: a source archive on this host."""

from __future__ import annotations

from pathlib import Path

from quizmatrix.core.checksum import sha256_of
from quizmatrix.core.errors import UnpreparedError, host_error
from quizmatrix.kernel import build
from quizmatrix.kernel.kernelsource import KernelSource
from quizmatrix.kernel.order import Order
from quizmatrix.kernel.tree import KernelTree, absolute, read_version, unpacked
from quizmatrix.model.arch import Arch


def check(wanted: str) -> str:
    """The absolute path of the file. Raises ValueError where there is none."""
    file = absolute(wanted)
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    return str(file)


def recipe(wanted: str, arch: Arch) -> str:
    """A text that names all that a build depends on; with the file's size and mtime."""
    now = Path(wanted).stat()
    return f"{build.recipe(wanted, arch)} {now.st_size} {now.st_mtime_ns}"


async def fetch(wanted: str, order: Order) -> str:
    """Build the kernel in the archive, unless the cache has it; returns its key.

    Raises UnpreparedError where that fails.
    """
    async with order.fetching:
        tree = await unpack(Path(wanted), order)
    return await build.build(tree, order)


async def unpack(archive: Path, order: Order, *, origin: str | None = None) -> KernelTree:
    """Unpack the source tree in an archive, once. origin: where it came from, for a person."""
    try:
        digest = sha256_of(archive)
    except OSError as error:
        raise host_error(f"read {archive}", error) from error

    async def already_here(_scratch: Path) -> Path:
        return archive

    path = await unpacked(f"tarball-{digest[:16]}", already_here, order.tell)
    try:
        version = read_version(path)
    except ValueError as error:
        raise UnpreparedError(f"{archive} holds no kernel source", cause=str(error)) from error
    return KernelTree(path=path, version=version, key=digest, origin=origin or str(archive))


SOURCE = KernelSource(
    check=check,
    recipe=recipe,
    fetch=fetch,
    is_local=lambda _wanted: True,
    example="Write tarball:FILE, an archive of a kernel's source.",
)
