"""Finds out what a guest is doing whose command has outlived its time limit."""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

import anyio

from quizmatrix.core.concurrency import in_thread
from quizmatrix.crash.memory import StoppedTask
from quizmatrix.model.finding import Finding
from quizmatrix.model.spec import CellSpec
from quizmatrix.model.stage import Stage
from quizmatrix.run.consolelog import ConsoleLog
from quizmatrix.run.conversation import Conversation
from quizmatrix.run.memoryfile import MemoryFile
from quizmatrix.run.qmp import Monitor, QmpError
from quizmatrix.run.verdict import Evidence, Expiry

# Seconds for QEMU to say where the CPUs are, and for the kernel to print that.
_LIMIT = 10.0
# Seconds for a console to arrive that its driver sends now and then (s390x).
_CONSOLE_REST = 0.3


class Inquiry:
    """Finds out what one guest is doing, with its console and a control channel of its QEMU."""

    def __init__(self, spec: CellSpec, monitor: Monitor, console: ConsoleLog, memory: MemoryFile) -> None:
        """Asks nothing. memory: taken if that is asked for, or can be read."""
        self._spec = spec
        self._monitor = monitor
        self._console = console
        self._memory = memory
        self._expiry: Expiry | None = None
        # Where the CPUs of a guest were that did not answer.
        self._places: list[str] = []
        self._is_silent = False
        # Whether QEMU has answered, of a silent guest: it may be what hangs.
        self._qemu_answers = False
        # What its tasks were doing, by its memory.
        self._tasks: list[StoppedTask] = []

    async def ask(self, seen: Evidence, talk: Conversation) -> list[str]:
        """Take what the guest has said; if that is nothing, ask QEMU, and make the kernel print its stack.

        Where drgn can read the memory of a guest that does not answer, that is taken, too.

        Only where the command runs, and the guest does not die just now. Returns notes for the user.
        """
        if (
            (expiry := seen.expired) is None
            or seen.stage is not Stage.RUNNING
            or self._console.dying.is_set()
        ):
            return []
        # Here, since the regular expressions for traces take long to compile, and most commands end.
        from quizmatrix.run import hang

        self._expiry = expiry
        threads = [thread for said in talk.threads if (thread := hang.read_thread(said)) is not None]
        expiry.hang = hang.finding(threads, self._console.watch.lines)
        self._is_silent = not talk.has_answered
        if self._is_silent:
            await self._look_at_cpus()
        note = await self._keep_or_take_memory()
        if self._qemu_answers and self._spec.machine.answers_nmi:
            expiry.provoked = self._console.watch.lines
            with anyio.move_on_after(_LIMIT), suppress(QmpError):
                await self._monitor.ask("inject-nmi")
                await self._console.dying.wait()
        await self._wait_for_console()
        return [note] if note else []

    async def _keep_or_take_memory(self) -> str:
        """Returns an error message or ""."""
        if self._spec.keeps.memory:
            return await self._memory.keep(self._monitor)
        if self._qemu_answers:
            from quizmatrix.run import crashreport

            if crashreport.can_be_read(self._spec):
                await self._memory.take(self._monitor)
        return ""

    def hand_over_memory(self) -> list[str]:
        """Put a memory that is kept into artifacts/, for `quizmatrix debug`; return notes.

        No guest may write there any more.
        """
        notes = self._memory.hand_over()
        if self._memory.kept is None:
            return notes
        from quizmatrix.run import crashreport

        return notes + crashreport.note(self._spec, self._memory.kept)

    async def read_memory(self) -> list[str]:
        """Have drgn read the guest's memory, if there is one; return notes. The guest must have ended."""
        if (unkept := self._memory.unkept) is not None:
            core = Path(f"/proc/{os.getpid()}/fd/{unkept.fileno()}")
        elif self._memory.kept is not None:
            core = self._memory.kept
        else:
            return []
        from quizmatrix.run import crashreport

        with unkept or nullcontext():
            self._tasks, notes = await crashreport.write(self._spec, core)
        return notes

    async def _look_at_cpus(self) -> None:
        from quizmatrix.run import registers

        kernel = Path(self._spec.machine.kernel.image).parent
        with anyio.move_on_after(_LIMIT), suppress(QmpError):
            await self._monitor.open()
            counters = await registers.counters(self._monitor)
            self._qemu_answers = True
            self._places = await in_thread(partial(registers.places, counters, kernel))

    async def _wait_for_console(self) -> None:
        """Wait until nothing more arrives: a kernel prints its stack line by line."""
        with anyio.move_on_after(_LIMIT):
            before = -1
            while before != self._console.received:
                before = self._console.received
                await anyio.sleep(_CONSOLE_REST)

    def findings(self) -> list[Finding]:
        """The findings of a guest that has ended: those of its console, and what it was doing."""
        found, expiry = self._console.watch.findings, self._expiry
        if expiry is None:
            return found
        own = [one for one in found if not expiry.has_provoked(one.line)]
        if self._is_silent:
            from quizmatrix.run import hang

            printed = next((one for one in found if expiry.has_provoked(one.line)), None)
            lines = self._console.watch.lines
            expiry.hang = hang.of_stopped_guest(self._tasks, self._places, printed, lines) or expiry.hang
        return own + ([expiry.hang] if expiry.hang else [])
