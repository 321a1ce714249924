"""The index of all modules of a guest: its kernel's own, and those that were built for it.

depmod(8) makes it from all of them at once, which takes seconds for the thousands of a ready-made kernel. It
reads a module's path, .modinfo and the names of its symbols, which most edits of a module leave as they are.
So an index is kept, and taken again.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from quizmatrix.core import paths
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.store import Store, key_of
from quizmatrix.kernel import modules
from quizmatrix.kernel.artifact import Kernel

if TYPE_CHECKING:
    from elftools.elf.sections import Section

# The folders of kept indexes, among a kernel's build layers.
KEPT = "index-"

_MODULES = "usr/lib/modules"
_READ_BY_DEPMOD = ("modules.builtin", "modules.order")

# Part of every key; has to be changed when the same modules are indexed differently.
_RECIPE = "1"

# A symbol (elf(5), Elf64_Sym and Elf32_Sym): name, info and section are the fields that are read.
_SYMBOLS = {64: "IBBHQQ", 32: "IIIBBH"}
_FIELDS = {64: (0, 1, 3), 32: (0, 3, 5)}
# A name is no longer (include/linux/kallsyms.h, KSYM_NAME_LEN).
_NAME_AT_MOST = 512
# Bytes of a section that are taken apart; the largest modules have 4 MB of symbols.
_SECTION_AT_MOST = 32 << 20


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
        read = _read(module)
    except Exception:  # pyelftools raises its own errors, and Python's, for a damaged file
        read = module
    return hashlib.sha256(read).hexdigest()


def _read(module: bytes) -> bytes:
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(module))
    info, exported, symbols = map(elf.get_section_by_name, (".modinfo", "__ksymtab_strings", ".symtab"))
    said = [line for line in _content(info).split(b"\0") if not line.startswith(b"srcversion=")]
    names = _content(elf.get_section(symbols["sh_link"])) if symbols else b""
    layout = struct.Struct(("<" if elf.little_endian else ">") + _SYMBOLS[elf.elfclass])
    name_at, info_at, section_at = _FIELDS[elf.elfclass]
    seen = [
        b"%d %s" % (one[section_at] == 0, names[one[name_at] : one[name_at] + _NAME_AT_MOST].split(b"\0")[0])
        for one in layout.iter_unpack(_content(symbols))
        if one[info_at] >> 4  # not STB_LOCAL: no other module sees a local one
    ]
    return b"\0\0".join([*said, _content(exported), *sorted(seen)])


def _content(section: Section | None) -> bytes:
    """What a section has. Raises ValueError where it is larger than in any module, or compressed."""
    if section is None:
        return b""
    if section.compressed or section["sh_size"] > _SECTION_AT_MOST:
        raise ValueError("a section as no module has it")
    found: bytes = section.data()
    return found
