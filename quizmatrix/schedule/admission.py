"""Decides whether one more guest may start: how much CPU and memory this host has, and how much is taken."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import anyio
import msgspec

from quizmatrix.core import process
from quizmatrix.core.errors import HostError
from quizmatrix.core.memory import available_memory, hosts_memory
from quizmatrix.model.arch import Accelerator, load_arch
from quizmatrix.model.cells import Cell
from quizmatrix.run.emulator import is_one_thread

# MiB that QEMU itself needs beside the guest's memory.
QEMU_MEMORY = 160
# The share of the host's available memory that guests may use.
MEMORY_SHARE = 0.8

# MiB of free memory that suffice for the only guest: few guests use all of their memory.
_LEAST_MEMORY = 256
# MiB of free disk that a guest needs to start; a console and a command's results take less.
LEAST_DISK = 16

# Seconds between two checks of a host that lacks memory or disk.
_LOOK_AGAIN = 1.0
# Seconds that a guest waits for memory while no other guest of this run could free any.
PATIENCE = 600.0

# More CPUs and memory than any host has.
_NO_LIMIT = 1 << 30


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What one VM needs of the host while it runs: CPUs, MiB of memory, MiB of disk."""

    cpus: int
    memory: int
    disk: int = LEAST_DISK


class Available(msgspec.Struct, frozen=True, kw_only=True):
    """What the host has free now: MiB of memory and of disk.

    is_of_cgroup: whether a cgroup's limit leaves less memory than the host has.
    """

    memory: int = _NO_LIMIT
    disk: int = _NO_LIMIT
    is_of_cgroup: bool = False


def need_of(cell: Cell, accelerator: Accelerator, *, disks: int = 0) -> Need:
    """What a VM of `cell` needs. disks: MiB of the disks that are handed to it."""
    threads = 1 if is_one_thread(load_arch(cell.arch), accelerator, cell.cpus) else cell.cpus
    return Need(
        cpus=threads * (threads_of_a_core() if accelerator is Accelerator.TCG else 1),
        memory=cell.memory + QEMU_MEMORY,
        disk=LEAST_DISK + disks,
    )


class Admission:
    """Hands out the host's CPUs, memory and places to VMs, in the order in which they ask.

    Those that go on with a cell's tests come before those of cells that have not begun. A VM that needs more
    than there is starts when no other VM runs. No VM starts while the host itself has too little memory or
    disk free, also if other programs use it.
    """

    def __init__(
        self,
        *,
        cpus: int,
        memory: int,
        places: int,
        look: Callable[[], Available] = Available,
        patience: float = PATIENCE,
    ) -> None:
        """cpus: of the host. memory: MiB for all guests. places: the number of VMs at a time. look: returns
        what the host has free now. patience: seconds that a VM waits for memory while no other VM of this run
        could free any.
        """
        self._cpus = cpus
        self._memory = memory
        self._places = places
        self._look = look
        self._patience = patience
        self._running = 0
        self._order, self._order_of_further = anyio.Lock(), anyio.Lock()
        self._further = 0
        self._freed = anyio.Event()

    async def enter(
        self, need: Need, tell: Callable[[str], None] = lambda _text: None, *, is_further: bool = False
    ) -> None:
        """Wait until the VM may start, and reserve what it needs.

        tell: is called with what the host lacks. is_further: whether it goes on with the tests of a cell.

        Raises HostError where the host lacks disk, or for long memory, and no VM of this run could free any.
        """
        self._further += is_further
        try:
            async with self._order_of_further if is_further else self._order:
                await self._wait_for_room(need, tell, is_further=is_further)
                self._take(need, 1)
        finally:
            self._further -= is_further
            if is_further:
                self._freed.set()

    async def _wait_for_room(self, need: Need, tell: Callable[[str], None], *, is_further: bool) -> None:
        told, waits_since = "", anyio.current_time()
        while True:
            short = self._shortage(need)
            is_its_turn = is_further or not self._further
            if not short and is_its_turn and (self._fits(need) or not self._running):
                return
            if self._running or not short:
                waits_since = anyio.current_time()
            elif self._look().disk < need.disk or anyio.current_time() - waits_since > self._patience:
                raise HostError(f"this host has {short}", next_step=_NEXT_STEP)
            if short and not told:
                told = short
                tell(f"waits: this host has {short}")
            if self._freed.is_set():
                self._freed = anyio.Event()
            # Other programs do not signal when they free memory or disk, so the host is checked again.
            with anyio.move_on_after(_LOOK_AGAIN if short else None):
                await self._freed.wait()

    def holds(self, need: Need) -> int:
        """How many VMs with this need may run at the same time, if no other runs; at least one."""
        return max(1, min(self._places, self._cpus // need.cpus, self._memory // need.memory))

    def leave(self, need: Need) -> None:
        """Release what `enter` reserved."""
        self._take(need, -1)
        self._freed.set()

    def _fits(self, need: Need) -> bool:
        return self._places >= 1 and self._cpus >= need.cpus and self._memory >= need.memory

    def _shortage(self, need: Need) -> str:
        """What the host has too little of now, as text; empty where it has enough."""
        left = self._look()
        memory = need.memory if self._running else min(need.memory, QEMU_MEMORY + _LEAST_MEMORY)
        if left.memory < memory:
            within = " within the limit of its cgroup" if left.is_of_cgroup else ""
            return f"{left.memory} MiB of memory left{within}, and a guest needs {memory}"
        if left.disk < need.disk:
            return f"{left.disk} MiB of disk left for its run directory, and a guest needs {need.disk}"
        return ""

    def _take(self, need: Need, sign: int) -> None:
        self._running += sign
        self._places -= sign
        self._cpus -= sign * need.cpus
        self._memory -= sign * need.memory


_NEXT_STEP = (
    "End what takes it, or start less: --memory for smaller guests, -j for fewer, --output for another disk, "
    "`quizmatrix runs prune` and `quizmatrix clean` for space."
)


def host_admission(jobs: int | None, folder: Path, *, memory: int | None = None) -> Admission:
    """The admission to this host: its usable CPUs, and most of its available memory.

    jobs: the number of VMs at a time (-j); then CPUs do not count. folder: where they write, to check free
    disk. memory: MiB for all guests, instead of that.
    """
    return Admission(
        cpus=process.usable_cpus() if jobs is None else _NO_LIMIT,
        memory=memory or int(available_memory() * MEMORY_SHARE),
        places=jobs if jobs is not None else _NO_LIMIT,
        look=lambda: _left(folder),
    )


def _left(folder: Path) -> Available:
    memory = available_memory()
    return Available(memory=memory, disk=_free_disk(folder), is_of_cgroup=memory < hosts_memory())


def _free_disk(folder: Path) -> int:
    """MiB of free disk. If the folder is gone there is no limit: the cells themselves report that error."""
    try:
        return shutil.disk_usage(folder).free >> 20
    except OSError:
        return _NO_LIMIT


@cache
def threads_of_a_core() -> int:
    """How many CPUs of this process share one core. A second thread of a core makes no emulated guest faster.

    From thread_siblings_list (kernel document admin-guide/cputopology.rst). It is 1 where a cgroup allows
    less CPU time than there are cores.
    """
    cpus = os.sched_getaffinity(0)
    try:
        cores = {
            Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
            for cpu in cpus
        }
    except OSError:
        return 1
    return max(1, process.usable_cpus() // len(cores))
