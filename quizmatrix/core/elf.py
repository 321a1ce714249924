"""Reads ELF files (elf(5)): a program's machine, loader, segments and sections.

pyelftools does the parsing. This module limits what it reads and how much, because files may come from
anybody, and imports it only for a file that begins with the ELF magic.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

_MAGIC = b"\x7fELF"

# Bytes of a header: as far as its machine, and all (of 64 bits).
_MACHINE_END = 20
_HEADER = 64

# Bytes of a program that are searched for its loader's name: linkers put it at the beginning.
_LOOKED_INTO = 1 << 16
_MOST_SEGMENTS = 100

# Bytes of a file that are read for the names of its sections.
_MOST_READ = 1 << 20

# Machines that are no architecture of ours, by the names that people know them by (elf.h).
_OTHERS = {
    "i386": (3, 32, "little"),
    "x32": (62, 32, "little"),
    "arm": (40, 32, "little"),
    "armeb": (40, 32, "big"),
    "aarch64_be": (183, 64, "big"),
    "powerpc": (20, 32, "big"),
    "s390": (22, 32, "big"),
    "riscv32": (243, 32, "little"),
    "mips": (8, 32, "big"),
    "mipsel": (8, 32, "little"),
    "mips64": (8, 64, "big"),
    "mips64el": (8, 64, "little"),
    "sparc": (2, 32, "big"),
    "sparc64": (43, 64, "big"),
    "m68k": (4, 32, "big"),
    "hppa": (15, 32, "big"),
    "alpha": (0x9026, 64, "little"),
    "ia64": (50, 64, "little"),
    "sh4": (42, 32, "little"),
}

# A word of a script that is more than the name of a program or an argument.
_SHELL = frozenset(";&|<>()$`*?[]{}~#!\n\\\"'=")


class Elf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What programs of an architecture begin with: e_machine and the bits of a word.

    also: names of other machines whose programs its kernels run where they are configured so.
    """

    machine: int
    bits: Literal[32, 64] = 64
    also: list[str] = []


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What one program is for."""

    machine: int
    bits: int
    byte_order: str

    @property
    def pattern(self) -> str:
        """A shell's pattern for the header in hexadecimal digits."""
        order = ">" if self.byte_order == "big" else "<"
        kind = f"7f454c46{1 if self.bits == 32 else 2:02x}{2 if self.byte_order == 'big' else 1:02x}"
        return kind + "?" * 24 + struct.pack(f"{order}H", self.machine).hex()


def others() -> dict[str, Machine]:
    """The machines that are no architecture of ours."""
    return {
        name: Machine(machine=machine, bits=bits, byte_order=order)
        for name, (machine, bits, order) in _OTHERS.items()
    }


def _head(path: Path, size: int) -> bytes:
    """The beginning of a file, without waiting for what is a FIFO; empty where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(descriptor, size)
        finally:
            os.close(descriptor)
    except OSError:
        return b""


def _parse(data: bytes) -> ELFFile | None:
    """An ELF file with its header read; None where it is none."""
    if not data.startswith(_MAGIC):
        return None
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        return ELFFile(io.BytesIO(data))
    except ELFError:
        return None


def machine_of(path: Path) -> Machine | None:
    """The machine that the program in a file is for; None where it is no program, or cannot be read."""
    head = _head(path, _MACHINE_END)
    # A file that ends here is none that runs, but says what it was made for.
    elf = _parse(head.ljust(_HEADER, b"\0")) if len(head) == _MACHINE_END else None
    # An object file or a module is no program.
    if elf is None or elf["e_type"] not in ("ET_EXEC", "ET_DYN"):
        return None
    from elftools.elf.enums import ENUM_E_MACHINE

    return Machine(
        machine=ENUM_E_MACHINE.get(elf["e_machine"], elf["e_machine"]),
        bits=elf.elfclass,
        byte_order="little" if elf.little_endian else "big",
    )


def interpreter_of(path: Path) -> str | None:
    """What the kernel starts in a file's place: for a script what stands behind `#!`, for a program that is
    linked dynamically its loader. None where it is neither, or cannot be read.
    """
    head = _head(path, _LOOKED_INTO)
    if head.startswith(b"#!"):
        words = head[2:].partition(b"\n")[0].split()
        return os.fsdecode(words[0]) if words else None
    for kind, offset, size in segments(head):
        if kind == "PT_INTERP":
            return os.fsdecode(head[offset : offset + size].rstrip(b"\0")) or None
    return None


def segments(head: bytes) -> list[tuple[str | int, int, int]]:
    """Type (a number where it has no name), offset and size of a program's segments.

    Empty where `head` lacks some of their headers, or where they are more than any program has.
    """
    elf = _parse(head)
    if elf is None or elf["e_phnum"] > _MOST_SEGMENTS:
        return []
    from elftools.common.exceptions import ELFError
    from elftools.common.utils import struct_parse

    # Not iter_segments(), which reads sections too, and those are at a program's end.
    starts = (elf["e_phoff"] + elf["e_phentsize"] * index for index in range(elf["e_phnum"]))
    try:
        headers = [struct_parse(elf.structs.Elf_Phdr, elf.stream, start) for start in starts]
    except (ELFError, OverflowError):  # an offset that no file has
        return []
    return [(header.p_type, header.p_offset, header.p_filesz) for header in headers]


class _LimitedFile(io.FileIO):
    """A file of which no more than _MOST_READ bytes are read in all; ValueError beyond that."""

    _left = _MOST_READ

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= size if size is not None and size >= 0 else _MOST_READ + 1
        if self._left < 0:
            raise ValueError("more is read of a file than its header can need")
        return super().read(size) or b""


def has_section(path: Path, name: str) -> bool:
    """Whether a file is an ELF file with a section of that name."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with _LimitedFile(path) as file:
            return ELFFile(file).has_section(name)
    except (OSError, ELFError, OverflowError, ValueError):
        return False


def program_word(command: Sequence[str]) -> str | None:
    """The word of COMMAND that names the program to be run; None where a shell has to tell."""
    if len(command) == 1:
        words = [] if _SHELL & {*command[0]} else command[0].split()
        return words[0] if words else None
    return None if {"&&", "||", "|"} & {*command} else command[0]


def in_tree(word: str, tree: str) -> Path | None:
    """The file that `word` names, where it is typed in the folder `tree` and the file is in that."""
    if "/" not in word or "\0" in word:
        return None
    path = Path(os.path.realpath(Path(tree, word)))
    return path if path.is_relative_to(os.path.realpath(tree)) and path.is_file() else None


# What a shell says that looks first, and what others say, with its name, of a line in what is no script. The
# guest decides how long its lines are: nothing here goes through one again and again.
_LOOKED = b": cannot execute"
_READ = re.compile(rb"^([^\n:]+): (?:line )?\d+: ", re.MULTILINE)
_MOST_NAMES = 50


def named_by_shells(stderr: bytes) -> Iterator[str]:
    """The names of what a shell could not run as a script, as far as its words tell."""
    heads = (line.partition(_LOOKED)[0] for line in stderr.splitlines() if _LOOKED in line)
    names = dict.fromkeys(head.rpartition(b": ")[2] for head in heads)
    names |= dict.fromkeys(match[1] for match in _READ.finditer(stderr))
    for name in list(names)[:_MOST_NAMES]:
        yield os.fsdecode(name)


_NOT_FOUND = re.compile(rb": (?:not found|No such file or directory)$")


def not_found(stderr: bytes) -> Iterator[str]:
    """The names of what a shell or env(1) did not find, as far as its words tell."""
    heads = [line[: match.start()] for line in stderr.splitlines() if (match := _NOT_FOUND.search(line))]
    names = dict.fromkeys(head.rpartition(b": ")[2] for head in heads)
    for name in list(names)[:_MOST_NAMES]:
        yield os.fsdecode(name).strip("'")
