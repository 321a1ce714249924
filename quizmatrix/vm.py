"""A VM: the QEMU process on the host, which never outlives the block it was started in."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import Process

from quizmatrix import process, qemu
from quizmatrix.channel import ConsolePipe, Port
from quizmatrix.errors import HostError
from quizmatrix.spec import CellSpec, Share

# Seconds QEMU is given to end by itself once its guest is gone, and to die of a KILL.
END_GRACE = 5.0


class VM:
    """A running QEMU."""

    def __init__(self, child: Process, log: Path) -> None:
        """Made by `running`."""
        self._child = child
        self._log = log

    async def ended(self) -> int:
        """Wait for QEMU's end; its exit status (negative: the signal)."""
        return await self._child.wait()

    async def status_soon(self) -> int | None:
        """The exit status of a QEMU that is ending by itself, or None where it is not."""
        with anyio.move_on_after(END_GRACE):
            return await self.ended()
        return None

    async def kill(self) -> None:
        """End QEMU at once: a guest has nothing that could be lost."""
        process.signal_group(self._child, signal.SIGKILL)
        await self._child.wait()

    @property
    def last_words(self) -> str:
        """The end of what QEMU itself said."""
        try:
            return self._log.read_text(errors="replace").strip()[-500:]
        except OSError:
            return ""


def require_qemu(spec: CellSpec) -> None:
    """HostError names the package where QEMU for the cell's architecture is not installed."""
    process.require_program(spec.arch.facts.qemu.binary, spec.arch.facts.qemu.package)


@asynccontextmanager
async def running(
    spec: CellSpec, shares: list[Share], console: ConsolePipe, ports: Mapping[str, Port], log: Path
) -> AsyncIterator[VM]:
    """Start QEMU for `spec` with `console` and `ports` as its chardevs; kill it at the block's end.

    log: where QEMU's own words go. Raises HostError where QEMU cannot be started.
    """
    require_qemu(spec)
    chardevs = {name: f"socket,fd={port.guest.fileno()}" for name, port in ports.items()}
    # append: QEMU would truncate, which a pipe does not take.
    chardevs["console"] = f"file,path={qemu.PASSED_FILE},append=on"
    argv = qemu.command_line(spec, shares, chardevs, passed_fd=console.guest)
    try:
        output = log.open("wb")
    except OSError as error:
        raise HostError(f"cannot write {log}", cause=error.strerror or str(error)) from error
    with output:
        child = await process.start(
            argv,
            pass_fds=[console.guest, *(port.guest.fileno() for port in ports.values())],
            output=output,
        )
    console.close_guest()
    for port in ports.values():
        port.close_guest()
    vm = VM(child, log)
    try:
        yield vm
    finally:
        with anyio.CancelScope(shield=True):
            await vm.kill()
