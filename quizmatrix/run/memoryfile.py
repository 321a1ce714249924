"""The file with a guest's memory, for a debugger."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

import anyio

from quizmatrix.core import untrusted
from quizmatrix.core.errors import host_error
from quizmatrix.model.spec import CellSpec
from quizmatrix.run.cellfolder import artifacts_of
from quizmatrix.run.hostdisk import disk_of
from quizmatrix.run.qmp import Monitor, QmpError

# The file's name, and seconds for QEMU to write it.
_CORE = "vmcore"
_DUMP_LIMIT = 120.0
# How often the disk has to have room for a memory that nobody has asked for: other guests may hang, too.
_AMPLE = 8


class MemoryFile:
    """The file with the memory of one guest, if there is one.

    kept: where it is for the user, once `hand_over` has put it there.
    unkept: the open file, if it is to be read and not kept.
    """

    def __init__(self, spec: CellSpec) -> None:
        """Takes nothing yet."""
        self.kept: Path | None = None
        self.unkept: BinaryIO | None = None
        self._spec = spec
        self._folder = Path(spec.files.folder)

    async def keep(self, monitor: Monitor) -> str:
        """Write the guest's memory to a file for a debugger; return an error message or "".

        The file is beside artifacts/, to which the guest may still write; `hand_over` moves it there.
        """
        return await self._write(monitor, 1)

    async def take(self, monitor: Monitor) -> None:
        """Have the guest's memory in `unkept`, if there is ample room: nobody has asked for that."""
        if await self._write(monitor, _AMPLE):
            return
        core = self._folder / _CORE
        # Without a name nothing of it stays, however this process ends. Not while QEMU has it open: it would
        # count as the guest's (see shared.py).
        with contextlib.suppress(OSError):
            self.unkept = core.open("rb")
            core.unlink()

    async def _write(self, monitor: Monitor, times: int) -> str:
        """Return an error message or "". times: how often it has to have room."""
        core, is_whole = self._folder / _CORE, False
        failed = "its memory could not be kept: "
        try:
            disk = disk_of(self._folder)
            if disk.free - disk.reserve < times * self._spec.machine.memory << 20:
                return f"{failed}{self._folder} has no room for {self._spec.machine.memory} MiB"
            file = os.fdopen(untrusted.create(core), "wb")
        except OSError as error:
            return f"{failed}{error}"
        try:
            with file, anyio.fail_after(_DUMP_LIMIT):
                await monitor.open()
                await monitor.dump_memory(file.fileno())
                is_whole = True
        except (QmpError, OSError) as error:  # a TimeoutError is one
            return f"{failed}{error or 'it took too long'}"
        finally:
            if not is_whole:
                core.unlink(missing_ok=True)
        return ""

    def hand_over(self) -> list[str]:
        """Move it into artifacts/, to which no guest may write any more; return notes for the user."""
        core = self._folder / _CORE
        if not core.exists():
            return []
        try:
            self.kept = untrusted.move_in(core, artifacts_of(self._folder))
        except OSError as error:
            return [str(host_error("keep its memory", error))]
        return [f"its memory is in {self.kept.parent.name}/{self.kept.name}"]
