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


class StoppedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a guest whose CPUs stood still.

    id: its number (TID). parent: its process' parent. state: the character that ps(1) prints.
    is_on_cpu: whether a CPU ran it. user, system: seconds of CPU time. stack: its frames in the kernel, the
    innermost first, as the kernel prints them (%pS); none where it ran in user space.
    """

    id: int
    parent: int
    name: str
    state: str
    is_on_cpu: bool
    user: float
    system: float
    stack: list[str]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What drgn read in a guest's memory.

    failure: why there is no report; otherwise empty. tasks: those of user space, and what is blocked or ran.
    """

    failure: str = ""
    tasks: list[StoppedTask] = []
