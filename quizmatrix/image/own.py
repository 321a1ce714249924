"""The small image's programs as this host has them, where Debian's packages cannot be fetched."""

from __future__ import annotations

import struct
from pathlib import Path

from quizmatrix import process
from quizmatrix.arch import Arch

# The program's name in the guest, and the names under which it may be installed, the static one first.
NAMES = {"busybox": ("busybox.static", "busybox-static", "busybox"), "tini": ("tini-static", "tini")}

_CLASS_64 = 2
_INTERPRETER = 3  # PT_INTERP of elf(5): the program wants a dynamic linker


def programs(arch: Arch) -> dict[str, bytes] | None:
    """The programs by name; None where the architecture is another, or one is not installed statically."""
    if not arch.is_native:
        return None
    found = {name: _static(names) for name, names in NAMES.items()}
    there = {name: data for name, data in found.items() if data is not None}
    return there if len(there) == len(found) else None


def _static(names: tuple[str, ...]) -> bytes | None:
    for name in names:
        path = process.find_program(name)
        if path is not None and is_static(data := Path(path).read_bytes()):
            return data
    return None


def is_static(data: bytes) -> bool:
    """Whether a file is a 64-bit program that runs without any library (elf(5))."""
    if len(data) < 64 or data[:4] != b"\x7fELF" or data[4] != _CLASS_64:
        return False
    order = "<" if data[5] == 1 else ">"
    (start,) = struct.unpack_from(f"{order}Q", data, 32)
    size, count = struct.unpack_from(f"{order}HH", data, 54)
    if start + size * count > len(data):
        return False
    kinds = [struct.unpack_from(f"{order}I", data, start + size * number)[0] for number in range(count)]
    return bool(kinds) and _INTERPRETER not in kinds
