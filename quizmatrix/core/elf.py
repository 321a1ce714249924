"""Programs, what they are for and what else they need, by the header that each begins with (elf(5))."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

# Bytes of the header that tell.
_HEADER = 20

# Where the name of a loader is found, if at all: linkers put it at the beginning.
_LOOKED_INTO = 1 << 16
# The type of the segment with that name (PT_INTERP).
INTERPRETER = 3
_MOST_SEGMENTS = 100

# Of 64 and of 32 bits: where a header has the place of its segments, and their size and number, and where a
# segment has its place and its length.
_PLACES = ((32, 54, 8, 32), (28, 42, 4, 16))

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


def machine_of(path: Path) -> Machine | None:
    """What the program in a file is for; None where it is no program, or cannot be read."""
    head = _head(path, _HEADER)
    if len(head) < _HEADER or head[:4] != b"\x7fELF" or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    order = "little" if head[5] == 1 else "big"
    kind, machine = struct.unpack("<HH" if head[5] == 1 else ">HH", head[16:20])
    # Executable or position-independent: an object file or a module is no program.
    if kind not in (2, 3):
        return None
    return Machine(machine=machine, bits=32 if head[4] == 1 else 64, byte_order=order)


def interpreter_of(path: Path) -> str | None:
    """What the kernel starts in a file's place: for a script what stands behind `#!`, for a program that is
    linked dynamically its loader. None where it is neither, or cannot be read.
    """
    head = _head(path, _LOOKED_INTO)
    if head.startswith(b"#!"):
        words = head[2:].partition(b"\n")[0].split()
        return os.fsdecode(words[0]) if words else None
    return _loader(head) if head[:4] == b"\x7fELF" else None


def _loader(head: bytes) -> str | None:
    for kind, place, length in segments(head):
        if kind == INTERPRETER:
            return os.fsdecode(head[place : place + length].rstrip(b"\0")) or None
    return None


def segments(head: bytes) -> list[tuple[int, int, int]]:
    """Type, place and length of a program's segments; none where `head` lacks some of their headers."""
    order = ">" if head[5:6] == b"\2" else "<"
    is_short = head[4:5] == b"\1"
    word = "I" if is_short else "Q"
    header, numbers, place, length = _PLACES[is_short]
    found = []
    try:
        (first,) = struct.unpack_from(order + word, head, header)
        size, number = struct.unpack_from(f"{order}HH", head, numbers)
        for at in (first + size * index for index in range(number if number <= _MOST_SEGMENTS else 0)):
            (kind,) = struct.unpack_from(f"{order}I", head, at)
            (begin,) = struct.unpack_from(order + word, head, at + place)
            (long,) = struct.unpack_from(order + word, head, at + length)
            found.append((kind, begin, long))
    except (struct.error, OverflowError):  # no whole program
        return []
    return found


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
