"""What is known of a guest's memory and its kernel before drgn opens it."""

from __future__ import annotations

import msgspec

from quizmatrix.model.arch import RegistersPlace

# The file with a KeptMemory, in a cell's folder.
FILE = "memory.json"


class KeptMemory(msgspec.Struct, frozen=True, kw_only=True):
    """A guest's memory, and what is known about its kernel.

    core: the file; in FILE, relative to the cell's folder. architecture: drgn's name. bits, is_little_endian:
    of its words. size: MiB. kernel: its key. release: of the kernel, as uname(1) prints it. vmlinux: with
    symbols, if there is one. modules: the folders with its modules. registers: see RegistersPlace; None where
    drgn finds them.
    """

    core: str
    architecture: str
    bits: int
    is_little_endian: bool
    size: int
    kernel: str
    release: str
    vmlinux: str = ""
    modules: list[str]
    registers: RegistersPlace | None = None
