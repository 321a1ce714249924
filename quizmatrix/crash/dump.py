"""Opens a guest's memory, as QEMU writes it, with drgn.

drgn finds its way in a kernel's memory by VMCOREINFO, a text that the kernel keeps for that
(Documentation/admin-guide/kdump/vmcoreinfo.rst). QEMU does not put it into the file, except where the guest's
kernel has told QEMU where it is, so it is looked for in the memory itself.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import drgn
from drgn.helpers.linux.kallsyms import module_kallsyms
from drgn.helpers.linux.module import for_each_module

from quizmatrix.core import untrusted
from quizmatrix.crash import prstatus
from quizmatrix.crash.bounds import Listed
from quizmatrix.crash.memory import KeptMemory

# Bytes that are read at a time; of an area with holes, less.
_BLOCK, _SMALL_BLOCK = 1 << 20, 1 << 16
# Where memory may begin again above a PC's hole for devices.
_HOLE = 2 << 30

_BEGIN = b"OSRELEASE="
# The kernel keeps the text in one page.
_LONGEST = 4096
_NEEDED = b"\nSYMBOL(swapper_pg_dir)="
# Enough for drgn to open a file of which only physical addresses are read.
_PLACEHOLDER = "OSRELEASE={release}\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=1000\n"


# The largest number of modules whose names are read.
_MOST_MODULES = 1000

# In a program's cache: the registers of the CPUs, where drgn does not find them itself.
REGISTERS = "quizmatrix: registers of the CPUs"


class UnreadableError(Exception):
    """A file that drgn cannot read, with the reason as its text."""


def vmcoreinfo(memory: KeptMemory) -> bytes:
    """The kernel's VMCOREINFO. Raises UnreadableError where it is not in the memory."""
    program = _opened(memory, _PLACEHOLDER.format(release=memory.release).encode())
    begin = _BEGIN + memory.release.encode() + b"\n"
    for start, block in _blocks(program, (memory.size << 20) + _HOLE):
        at = block.find(begin)
        while at >= 0:
            text = _read(program, start + at, _LONGEST) or block[at:]
            if _NEEDED in (info := text.partition(b"\0")[0]):
                return info
            at = block.find(begin, at + 1)
    raise UnreadableError(
        "there is no VMCOREINFO in it: a kernel keeps that with CONFIG_PROC_KCORE, kexec or CONFIG_CRASH_DUMP"
    )


def open_dump(memory: KeptMemory) -> drgn.Program:
    """The guest's kernel, with the debug information that there is.

    Raises UnreadableError where the file or the debug information does not fit.
    """
    # It would tell of each file that is of no loaded module.
    logging.getLogger("drgn").setLevel(logging.ERROR)
    program = _opened(memory, vmcoreinfo(memory))
    # Not this host's, nor what a server on the network has.
    program.set_enabled_debug_info_finders(["standard"])
    program.debug_info_options.directories = ()
    program.debug_info_options.kernel_directories = tuple(memory.modules)
    try:
        _load(program, [memory.vmlinux])
    except Exception as error:  # drgn has no class for a file that it cannot parse
        raise UnreadableError(f"drgn cannot read {memory.vmlinux}: {error}") from error
    with contextlib.suppress(Exception):  # a module may be damaged
        files = (untrusted.files_below(Path(folder), ".ko") for folder in memory.modules)
        _load(program, [str(file) for found in files for file in found])
    if _has_debug_information(program):
        program.register_symbol_finder("modules", _names_in_modules(program), enable_index=-1)
        program.cache[REGISTERS] = prstatus.registers(program, memory)
        return program
    raise UnreadableError(f"{memory.vmlinux} has no debug information, or is of another build")


def _names_in_modules(program: drgn.Program) -> drgn.SymbolIndex:
    """The names in modules without debug information, too, as the guest's kernel knows them."""
    names: list[drgn.Symbol] = []
    for module in Listed(for_each_module(program), _MOST_MODULES):
        with contextlib.suppress(Exception):  # it may just be loaded, or be damaged
            names += module_kallsyms(module)
    return drgn.SymbolIndex(names)


def _load(program: drgn.Program, files: list[str]) -> None:
    with contextlib.suppress(drgn.MissingDebugInfoError):  # most modules have none
        program.load_debug_info(files)


def _has_debug_information(program: drgn.Program) -> bool:
    try:
        return not program.main_module().wants_debug_file()
    except LookupError:
        return False


def _opened(memory: KeptMemory, info: bytes) -> drgn.Program:
    flags = drgn.PlatformFlags.IS_64_BIT if memory.bits == 64 else drgn.PlatformFlags(0)
    if memory.is_little_endian:
        flags |= drgn.PlatformFlags.IS_LITTLE_ENDIAN
    try:
        platform = drgn.Platform(drgn.Architecture[memory.architecture], flags)
        program = drgn.Program(platform, vmcoreinfo=info)
        program.set_core_dump(memory.core)
    except Exception as error:  # libkdumpfile's errors are of no class of their own
        raise UnreadableError(f"drgn cannot open {memory.core}: {error}") from error
    return program


def _blocks(program: drgn.Program, end: int) -> Iterator[tuple[int, bytes]]:
    """The physical memory up to an address, with the addresses of its blocks."""
    for start in range(0, end, _BLOCK):
        block = _read(program, start, _BLOCK)
        if block is not None:
            yield start, block
            continue
        for small in range(start, start + _BLOCK, _SMALL_BLOCK):
            if (block := _read(program, small, _SMALL_BLOCK)) is not None:
                yield small, block


def _read(program: drgn.Program, address: int, size: int) -> bytes | None:
    try:
        return bytes(program.read(address, size, physical=True))
    except drgn.FaultError:
        return None
