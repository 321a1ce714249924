"""Starts a VM: a QEMU process that always ends with the `async with` block that started it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
from anyio.abc import Process

from quizmatrix.core import process
from quizmatrix.model.spec import CellSpec, Share
from quizmatrix.run import qemu
from quizmatrix.run.channel import CHUNK, ConsolePipe, Port, write_all

# Seconds QEMU is given to end by itself once its guest is gone, and to die of a KILL.
END_GRACE = 5.0

# Bytes of QEMU's own words that are kept in its log, and of their end, for the outcome's detail. A guest can
# have QEMU print errors without end.
_LOG_LIMIT = 1 << 20
_LAST_WORDS = 500


class Log:
    """What QEMU itself says: the beginning is kept in a file, the end in memory."""

    def __init__(self, path: Path) -> None:
        """Made before QEMU is, which gets the writing end of a pipe."""
        self.received = 0
        self._path = path
        self._end = b""
        self._kept = 0
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # QEMU waits for us rather than lose a word.
        os.set_blocking(self.writer, True)

    async def pump(self) -> None:
        """Read to QEMU's end. OSError where it cannot be kept."""
        with self._path.open("wb", buffering=0) as file:
            while True:
                await anyio.lowlevel.checkpoint()
                try:
                    data = os.read(self._reader, CHUNK)
                except BlockingIOError:
                    await anyio.wait_readable(self._reader)
                    continue
                if not data:
                    return
                self._take(data)
                wanted = data[: _LOG_LIMIT - self._kept]
                self._kept += len(wanted)
                await write_all(file, wanted)

    def _take(self, data: bytes) -> None:
        self.received += len(data)
        self._end = (self._end + data)[-_LAST_WORDS:]

    @property
    def last_words(self) -> str:
        """The end of what has come so far."""
        return self._end.decode(errors="replace").strip()

    @property
    def cut(self) -> str:
        """That the file does not have all, in words; empty where it does."""
        if self.received <= _LOG_LIMIT:
            return ""
        return f"{self._path.name} was {self.received} bytes long; the first {_LOG_LIMIT} are kept"

    def close_writer(self) -> None:
        """Let QEMU have the only copy of its end, so that its death shows here."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def close(self) -> None:
        """Close what is still open of both ends."""
        self.close_writer()
        os.close(self._reader)


class VM:
    """A running QEMU."""

    def __init__(self, child: Process) -> None:
        """Made by `running`."""
        self._child = child
        # Whether it hangs in the kernel, where not even KILL reaches it.
        self.outlived_kill = False

    @property
    def pid(self) -> int:
        """Of QEMU's process."""
        return self._child.pid

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
        self.outlived_kill = not await process.kill(self._child)


def require_qemu(spec: CellSpec) -> None:
    """HostError names the package where QEMU for the cell's architecture is not installed."""
    process.require_program(spec.arch.facts.qemu.binary, spec.arch.facts.qemu.package)


@asynccontextmanager
async def running(
    spec: CellSpec, shares: list[Share], console: ConsolePipe, ports: Mapping[str, Port], log: Log
) -> AsyncIterator[VM]:
    """Start QEMU for `spec` with `console` and `ports` as its chardevs; kill it at the block's end.

    log: gets QEMU's own words. Raises HostError where QEMU cannot be started.
    """
    require_qemu(spec)
    chardevs = {name: f"socket,fd={port.guest.fileno()}" for name, port in ports.items()}
    # append: QEMU would truncate, which a pipe does not take.
    chardevs["console"] = f"file,path={qemu.PASSED_FILE},append=on"
    argv = qemu.command_line(spec, shares, chardevs, passed_fd=console.guest)
    child = await process.start(
        argv,
        pass_fds=[console.guest, *(port.guest.fileno() for port in ports.values())],
        output=log.writer,
    )
    vm = VM(child)
    try:
        log.close_writer()
        console.close_guest()
        for port in ports.values():
            port.close_guest()
        yield vm
    finally:
        with anyio.CancelScope(shield=True):
            await vm.kill()
