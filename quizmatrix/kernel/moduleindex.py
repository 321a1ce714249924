"""The index of all modules of a guest: its kernel's own, and those that were built for it.

depmod(8) makes it from all of them at once, which takes seconds for the thousands of a ready-made kernel. It
reads a module's path, .modinfo and the names of its symbols, which most edits of a module leave as they are.
So an index is kept, and taken again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from quizmatrix.core import objectfile, paths
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.store import Store, key_of
from quizmatrix.kernel import modules
from quizmatrix.kernel.artifact import Kernel

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

# The folders of kept indexes, among a kernel's build layers.
KEPT = "index-"

_MODULES = "usr/lib/modules"
_READ_BY_DEPMOD = ("modules.builtin", "modules.order")

# Part of every key; has to be changed when the same modules are indexed differently.
_RECIPE = "1"


def files(folder: Path) -> Iterator[Path]:
    """The modules below a folder."""
    return (path for path in folder.rglob("*.ko*") if path.is_file())


async def write(kernel: Kernel, found: Sequence[Path], into: Path, store: Store) -> None:
    """Write the index of the kernel's modules and of those in the folders `found` to a layer.

    into: the layer. store: of the kernel's build layers, where the index is kept.
    Raises DamagedError where depmod(8) fails.
    """
    kept = store.path(f"{KEPT}{await in_thread(partial(_key, kernel, found))}")
    if not kept.is_dir():
        await _make(kernel, found, kept)
    os.utime(kept)
    made = into / _MODULES / kernel.record.release
    made.mkdir(parents=True, exist_ok=True)
    for path in kept.iterdir():
        # It may be a hard link to a file of a layer, which must not be overwritten.
        (made / path.name).unlink(missing_ok=True)
        shutil.copyfile(path, made / path.name)


async def _make(kernel: Kernel, found: Sequence[Path], kept: Path) -> None:
    with paths.scratch(kept.parent, "index") as name:
        all_of_them = Path(name) / _MODULES / kernel.record.release
        # A ready-made kernel has thousands of modules.
        await in_thread(partial(_gather, kernel, found, all_of_them), is_awaited=True)
        await modules.index_modules(Path(name), kernel.record.release)
        with paths.new_dir(kept) as made:
            for path in all_of_them.glob("modules.*"):
                path.rename(made / path.name)


def _gather(kernel: Kernel, found: Sequence[Path], into: Path) -> None:
    """Make symlinks in `into` to the kernel's modules and those in `found`, for depmod."""
    for top in (kernel.modules, *found):
        for path in files(top):
            link = into / path.relative_to(top)
            link.parent.mkdir(parents=True, exist_ok=True)
            # If two modules have the same path, the guest sees the upper layer's.
            link.unlink(missing_ok=True)
            link.symlink_to(path)
    for path in kernel.modules.glob("modules.*"):
        if path.name.startswith(_READ_BY_DEPMOD):
            shutil.copyfile(path, into / path.name)


def _key(kernel: Kernel, found: Sequence[Path]) -> str:
    """A hash of what the index depends on."""
    made_of = [_RECIPE, kernel.record.key]
    for top in found:
        for path in sorted(files(top)):
            made_of += [str(path.relative_to(top)), _facts(modules.decompress(path.name, path.read_bytes()))]
    return key_of(made_of)


def _facts(module: bytes) -> str:
    """A hash of what depmod(8) reads in a module; of all of it where it is no ELF file as others are."""
    try:
        with objectfile.parsed(module) as elf:
            read = _read(elf)
    except ValueError:
        read = module
    return hashlib.sha256(read).hexdigest()


def _read(elf: ELFFile) -> bytes:
    info, exported = map(elf.get_section_by_name, (".modinfo", "__ksymtab_strings"))
    lines = objectfile.content(info).split(b"\0")
    said = [line for line in lines if not line.startswith(b"srcversion=")]
    seen = [b"%d %s" % (one.is_undefined, one.name) for one in objectfile.global_symbols(elf)]
    return b"\0\0".join([*said, objectfile.content(exported), *sorted(seen)])
