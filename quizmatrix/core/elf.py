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

# Bytes of a header up to the end of e_machine, and of a whole 64-bit header.
_MACHINE_END = 20
_HEADER = 64

# Bytes of a program that are searched for its loader's name; linkers put it at the beginning.
_INTERPRETER_BYTES = 1 << 16
_MAX_SEGMENTS = 100

# Bytes that are read to find the names of a file's sections.
_MAX_READ = 1 << 20

# Machines without a file in arch/, by their usual names: e_machine (elf.h), bits, byte order.
_OTHER_MACHINES = {
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

# Characters that have a meaning to a shell: a script that has them is not only a program and its arguments.
_SHELL_CHARACTERS = frozenset(";&|<>()$`*?[]{}~#!\n\\\"'=")


class Elf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ELF header of an architecture's programs. machine: e_machine. bits: of a word.

    also: other machines whose programs its kernels can run, if configured to.
    """

    machine: int
    bits: Literal[32, 64] = 64
    also: list[str] = []


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine that a program is for. machine: e_machine. bits: 32 or 64. byte_order: little or big."""

    machine: int
    bits: int
    byte_order: str

    @property
    def pattern(self) -> str:
        """A shell pattern that matches the header, written in hexadecimal digits."""
        order = ">" if self.byte_order == "big" else "<"
        kind = f"7f454c46{1 if self.bits == 32 else 2:02x}{2 if self.byte_order == 'big' else 1:02x}"
        return kind + "?" * 24 + struct.pack(f"{order}H", self.machine).hex()


def other_machines() -> dict[str, Machine]:
    """The machines without a file in arch/, by name."""
    return {
        name: Machine(machine=machine, bits=bits, byte_order=order)
        for name, (machine, bits, order) in _OTHER_MACHINES.items()
    }


def _head(path: Path, size: int) -> bytes:
    """The first `size` bytes of a file; empty if it cannot be read. Does not block on a FIFO."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(descriptor, size)
        finally:
            os.close(descriptor)
    except OSError:
        return b""


def _parse(data: bytes) -> ELFFile | None:
    """An ELF file with its header parsed; None if `data` is not ELF."""
    if not data.startswith(_MAGIC):
        return None
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        return ELFFile(io.BytesIO(data))
    except ELFError:
        return None


def machine_of(path: Path) -> Machine | None:
    """The machine that a program is for; None if the file is not a program or cannot be read."""
    # Object files and kernel modules are not programs.
    return machine_in(_head(path, _MACHINE_END), ("ET_EXEC", "ET_DYN"))


def machine_in(head: bytes, kinds: Sequence[str] = ("ET_REL", "ET_EXEC", "ET_DYN"), /) -> Machine | None:
    """The machine of an ELF file, from its beginning; None if it is not ELF, or of none of these kinds."""
    # A file that ends after e_machine cannot run, but it still names its machine.
    elf = _parse(head[:_HEADER].ljust(_HEADER, b"\0")) if len(head) >= _MACHINE_END else None
    if elf is None or elf["e_type"] not in kinds:
        return None
    from elftools.elf.enums import ENUM_E_MACHINE

    return Machine(
        machine=ENUM_E_MACHINE.get(elf["e_machine"], elf["e_machine"]),
        bits=elf.elfclass,
        byte_order="little" if elf.little_endian else "big",
    )


def interpreter_of(path: Path) -> str | None:
    """The interpreter that the kernel starts for a file: from `#!` in a script, else an ELF program's loader.

    None if the file has none (a statically linked program, for one), or cannot be read.
    """
    head = _head(path, _INTERPRETER_BYTES)
    if head.startswith(b"#!"):
        words = head[2:].partition(b"\n")[0].split()
        return os.fsdecode(words[0]) if words else None
    for kind, offset, size in segments(head):
        if kind == "PT_INTERP":
            return os.fsdecode(head[offset : offset + size].rstrip(b"\0")) or None
    return None


def segments(head: bytes) -> list[tuple[str | int, int, int]]:
    """Type (a number if it has no name), offset and size of each segment of a program.

    Empty if `head` does not contain all segment headers, or if there are more than a real program has.
    """
    elf = _parse(head)
    if elf is None or elf["e_phnum"] > _MAX_SEGMENTS:
        return []
    from elftools.common.exceptions import ELFError
    from elftools.common.utils import struct_parse

    # Not iter_segments(): it reads the sections too, and those are at the end of the file.
    starts = (elf["e_phoff"] + elf["e_phentsize"] * index for index in range(elf["e_phnum"]))
    try:
        headers = [struct_parse(elf.structs.Elf_Phdr, elf.stream, start) for start in starts]
    except (ELFError, OverflowError):  # an offset beyond any file
        return []
    return [(header.p_type, header.p_offset, header.p_filesz) for header in headers]


class _LimitedFile(io.FileIO):
    """A file that raises ValueError when more than _MAX_READ bytes are read from it in all."""

    _left = _MAX_READ

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= size if size is not None and size >= 0 else _MAX_READ + 1
        if self._left < 0:
            raise ValueError("the file's section headers need more reads than allowed")
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
    """The word of COMMAND that names the program; None if only a shell can tell."""
    if len(command) == 1:
        words = [] if _SHELL_CHARACTERS & {*command[0]} else command[0].split()
        return words[0] if words else None
    return None if {"&&", "||", "|"} & {*command} else command[0]


# A variable before a command of a shell.
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


def shell_words(script: str) -> Iterator[str]:
    """The words and operators of a shell's script. Raises ValueError at a word without its closing quote."""
    import shlex

    words = shlex.shlex(script, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    yield from words


def first_word(command: Sequence[str]) -> str | None:
    """The first word of COMMAND, or of the script that it is, after assignments; None if there is none."""
    if len(command) != 1:
        return command[0] if command else None
    try:
        return next((word for word in shell_words(command[0]) if not ASSIGNMENT.match(word)), None)
    except ValueError:  # a missing closing quote
        return None


def file_in_tree(word: str, tree: str) -> Path | None:
    """The file that `word` names when typed in the folder `tree`; None if that is not a file in `tree`."""
    if "/" not in word or "\0" in word:
        return None
    path = Path(os.path.realpath(Path(tree, word)))
    return path if path.is_relative_to(os.path.realpath(tree)) and path.is_file() else None


# What shells print about a file that is not a script. Some check the file first ("cannot execute"); others
# read it and report a line number. A guest chooses how long its lines are: no regex here may backtrack.
_CANNOT_EXECUTE = b": cannot execute"
_AT_LINE = re.compile(rb"^([^\n:]+): (?:line )?\d+: ", re.MULTILINE)
_MAX_NAMES = 50


def not_executable(stderr: bytes) -> Iterator[str]:
    """The names of files that a shell could not run as scripts, taken from its error messages."""
    heads = (line.partition(_CANNOT_EXECUTE)[0] for line in stderr.splitlines() if _CANNOT_EXECUTE in line)
    names = dict.fromkeys(head.rpartition(b": ")[2] for head in heads)
    names |= dict.fromkeys(match[1] for match in _AT_LINE.finditer(stderr))
    for name in list(names)[:_MAX_NAMES]:
        yield os.fsdecode(name)


_NOT_FOUND = re.compile(rb": (?:not found|No such file or directory)$")


def not_found(stderr: bytes) -> Iterator[str]:
    """The names of files that a shell or env(1) did not find, taken from their error messages."""
    heads = [line[: match.start()] for line in stderr.splitlines() if (match := _NOT_FOUND.search(line))]
    names = dict.fromkeys(head.rpartition(b": ")[2] for head in heads)
    for name in list(names)[:_MAX_NAMES]:
        yield os.fsdecode(name).strip("'")
