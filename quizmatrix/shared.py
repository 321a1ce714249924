"""A guest's /shared on the host: taken back, made safe, and completed once the guest is gone."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import anyio.to_thread

from quizmatrix import layerdisks, qmp, untrusted
from quizmatrix import spec as specs
from quizmatrix.channel import Port
from quizmatrix.errors import QuizmatrixError, host_error
from quizmatrix.spec import CellSpec

# A guest's memory, for crash(8), and the seconds for QEMU to write it.
_CORE = "vmcore"
_DUMP_LIMIT = 120.0

# Changes that are named one by one.
_NOTES_SHOWN = 5


class Shared:
    """The /shared of one guest."""

    def __init__(self, spec: CellSpec) -> None:
        """What comes of it is in the cell's folder."""
        self._spec = spec
        self._folder = Path(spec.folder)
        self._artifacts = specs.artifacts_of(self._folder)

    async def keep_memory(self, port: Port) -> str:
        """Write the guest's memory for a debugger; what kept us from it, or nothing. port: QEMU's own.

        Beside artifacts/, to which the guest may still write; `settle` moves it in.
        """
        core, is_whole = self._folder / _CORE, False
        try:
            with os.fdopen(untrusted.create(core), "wb") as file, anyio.fail_after(_DUMP_LIMIT):
                await qmp.dump_memory(port, file.fileno())
                is_whole = True
        except (qmp.QmpError, OSError) as error:  # a TimeoutError is one
            return f"its memory could not be kept: {error or 'it took too long'}"
        finally:
            if not is_whole:
                core.unlink(missing_ok=True)
        return ""

    async def settle(self) -> list[str]:
        """Bring artifacts/ into the state that is kept; what a person has to know of it.

        The guest is gone by now.
        """
        if not self._folder.is_dir():
            return []
        notes = await self._take_back()
        # In a thread: the guest decided how much that is, and other guests do not wait.
        return notes + await anyio.to_thread.run_sync(self._make_safe)

    async def _take_back(self) -> list[str]:
        if self._spec.has_9p:
            return []
        try:
            trouble = await layerdisks.take_shared(self._folder)
        except (OSError, QuizmatrixError) as error:
            trouble = f"/shared could not be unpacked: {error}"
        return [trouble] if trouble else []

    def _make_safe(self) -> list[str]:
        core, notes = self._folder / _CORE, []
        try:
            changed = untrusted.make_safe(self._artifacts)
            if core.exists():
                moved = untrusted.move_in(core, self._artifacts)
                notes.append(f"its memory is in {moved.parent.name}/{moved.name}")
        except OSError as error:
            changed = [str(host_error("look through what it left in /shared", error))]
        notes += changed[:_NOTES_SHOWN]
        if len(changed) > _NOTES_SHOWN:
            notes.append(f"and {len(changed) - _NOTES_SHOWN} more in /shared")
        return notes
