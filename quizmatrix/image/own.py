"""The small image's busybox as this host has it, where Debian's packages cannot be fetched."""

from __future__ import annotations

import struct
from pathlib import Path

from quizmatrix import process
from quizmatrix.arch import Arch

# The names under which it may be installed, the static one first.
NAMES = ("busybox.static", "busybox-static", "busybox")

_CLASS_64 = 2
_INTERPRETER = 3  # PT_INTERP of elf(5): the program wants a dynamic linker


def programs(arch: Arch) -> dict[str, bytes] | None:
    """The guest's programs by name; None where the architecture is another, or no busybox is static."""
    if not arch.is_native:
        return None
    for name in NAMES:
        path = process.find_program(name)
        if path is not None and is_static(data := Path(path).read_bytes()):
            return {"busybox": data}
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
