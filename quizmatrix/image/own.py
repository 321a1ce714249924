"""Uses this host's own busybox for the small image, where Debian's packages cannot be fetched."""

from __future__ import annotations

from pathlib import Path

from quizmatrix.core import elf, process
from quizmatrix.model.arch import Arch

# The names that busybox may have, the static one's first.
NAMES = ("busybox.static", "busybox-static", "busybox")

_CLASS_64 = 2


def programs(arch: Arch) -> dict[str, bytes] | None:
    """The guest's programs by name; None for another architecture, or without a static busybox."""
    if not arch.is_native:
        return None
    for name in NAMES:
        path = process.find_program(name)
        if path is not None and is_static(data := Path(path).read_bytes()):
            return {"busybox": data}
    return None


def is_static(data: bytes) -> bool:
    """Whether a file is a 64-bit program that runs without any library (elf(5))."""
    if data[:4] != b"\x7fELF" or data[4:5] != bytes([_CLASS_64]):
        return False
    kinds = [kind for kind, _, _ in elf.segments(data)]
    return bool(kinds) and "PT_INTERP" not in kinds
