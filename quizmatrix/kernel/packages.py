"""Stores the kernel in .deb and .rpm files of any distribution, with its modules and its headers."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import msgspec

from quizmatrix.core import elf, packagefile, paths
from quizmatrix.core.checksum import sha256_of
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import DamagedError, host_error
from quizmatrix.core.store import key_of
from quizmatrix.core.uses import Uses
from quizmatrix.debian import foreign
from quizmatrix.kernel import kernelfiles, kernelstore
from quizmatrix.kernel.artifact import KERNELS
from quizmatrix.kernel.buildtree import TreeRecord
from quizmatrix.kernel.kernelfiles import KernelFiles
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import host_arch

# What packages of headers have: folders, and globs in them.
_PARTS = {"usr/src": "*", "usr/lib": "linux-kbuild-*", "lib": "linux-kbuild-*"}


async def store(files: list[Path], order: Order, *, where: str) -> str:
    """Have the kernel in `files` in the cache; returns its key.

    files: the packages of one kernel: its image and its modules and, for modules, its headers.
    where: names the files in messages.
    Raises UnpreparedError where they are damaged, hostile, for another architecture or lack something,
    UsageError where they have no kernel or several, HostError where libarchive is missing.
    """
    kernelstore.check_order(where, order)
    packagefile.check_library()
    async with order.fetching:
        held = Uses()
        try:
            content = key_of(sorted([await in_thread(partial(sha256_of, file)) for file in files]), 64)
            with paths.scratch(KERNELS.root, "packages") as name:
                root = Path(name).resolve() / "root"
                root.mkdir()
                order.tell(
                    f"unpacking {files[0].name}" + (f" and {len(files) - 1} more" if files[1:] else "")
                )
                await packagefile.unpack(files, root)
                found = await in_thread(partial(kernelfiles.look, root, where))
                return await kernelstore.store(
                    found,
                    order,
                    origin=[file.name for file in files],
                    content=content,
                    place_tree=partial(_place_tree, root, found, order, held),
                )
        except OSError as error:
            raise host_error(f"read the packages of {where}", error) from error
        finally:
            held.release()


async def _place_tree(
    root: Path, found: KernelFiles, order: Order, held: Uses, folder: Path, final: Path
) -> TreeRecord:
    """Make a build tree of the headers in `root`. held: holds the compilers that it needs."""
    headers, source = await in_thread(partial(_move_headers, root, found.headers or root, folder, final))
    record = TreeRecord(
        folder=str(final / headers.relative_to(folder)),
        source=str(final / source.relative_to(folder.resolve())),
        make=kernelstore.make_words(order.arch),
    )
    from quizmatrix.kernel import buildprograms  # what it imports is for Debian's archive

    if elf.machine_of(headers / buildprograms.PROGRAM) == host_arch().machine:
        return record
    compilers = await buildprograms.provide(headers, found.release, order)
    for used in compilers.used:
        await held.hold(used)
    return msgspec.structs.replace(
        record,
        make=compilers.make_words(order.arch),
        tools=[str(tool) for tool in compilers.tools],
        toolchains=[used.name for used in compilers.used],
    )


def _move_headers(root: Path, headers: Path, folder: Path, final: Path) -> tuple[Path, Path]:
    """Move headers to a build tree's folder, as they would be installed; where they and their source are."""
    for place, names in _PARTS.items():
        for path in (root / place).glob(names):
            (folder / place).mkdir(parents=True, exist_ok=True)
            shutil.move(path, folder / place / path.name)
    # They may have been deeper in the package, where usr/src is a link.
    foreign.keep_links_inside(folder)
    moved = folder / headers.relative_to(root)
    makefile = moved / "Makefile"
    source = kernelfiles.source_of(moved, folder)
    if not source.is_relative_to(folder.resolve()):
        raise DamagedError(
            "the headers are not whole",
            cause="their Makefile includes a file that is outside of their packages",
        )
    if not makefile.is_symlink():
        text = kernelfiles.read(makefile)
        makefile.unlink()
        makefile.write_bytes(kernelfiles.pointed(text, final))
    return moved, source
