"""Finds out what a guest is doing whose command has outlived its time limit."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import anyio

from quizmatrix.model.finding import Finding
from quizmatrix.model.spec import CellSpec
from quizmatrix.run import hang
from quizmatrix.run.channel import Port
from quizmatrix.run.consolelog import ConsoleLog
from quizmatrix.run.hang import Thread
from quizmatrix.run.qmp import Monitor, QmpError
from quizmatrix.run.verdict import Expiry

# Seconds for QEMU to say where the CPUs are, and for the kernel to print that.
_LIMIT = 10.0
# Seconds for a console to arrive that its driver sends now and then (s390x).
_CONSOLE_REST = 0.3


class Inquiry:
    """Finds out what one guest is doing, with its console and a control channel of its QEMU."""

    def __init__(self, spec: CellSpec, port: Port, console: ConsoleLog) -> None:
        """Asks nothing. port: of a control channel that nobody uses."""
        self._machine = spec.machine
        self._port = port
        self._console = console
        self._expiry: Expiry | None = None
        # Where the CPUs of a guest were that did not answer.
        self._places: list[str] = []

    async def ask(self, expiry: Expiry, threads: list[Thread]) -> None:
        """Take what the guest has said; if that is nothing, ask QEMU, and make the kernel print its stack."""
        self._expiry = expiry
        expiry.hang = hang.finding(threads, self._console.watch.lines)
        if expiry.hang is None:
            with anyio.move_on_after(_LIMIT), suppress(QmpError):
                await self._ask_qemu(expiry)
        await anyio.sleep(_CONSOLE_REST)

    async def _ask_qemu(self, expiry: Expiry) -> None:
        from quizmatrix.run import registers

        monitor = Monitor(self._port)
        await monitor.open()
        self._places = await registers.places(monitor, Path(self._machine.kernel.image).parent)
        if self._machine.answers_nmi:
            expiry.provoked = self._console.watch.lines
            await monitor.ask("inject-nmi")
            await self._console.dying.wait()

    def findings(self) -> list[Finding]:
        """The findings of a guest that has ended: those of its console, and what it was doing."""
        found, expiry = self._console.watch.findings, self._expiry
        if expiry is None:
            return found
        own = [one for one in found if not expiry.has_provoked(one.line)]
        if self._places:
            printed = next((one for one in found if expiry.has_provoked(one.line)), None)
            expiry.hang = hang.of_silent_guest(self._places, printed, self._console.watch.lines)
        return own + ([expiry.hang] if expiry.hang else [])
