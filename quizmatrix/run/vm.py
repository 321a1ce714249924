"""Starts a VM: a QEMU process that always ends with the `async with` block that started it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import msgspec

from quizmatrix.core import process
from quizmatrix.core.errors import host_error
from quizmatrix.model.spec import CellSpec, Share
from quizmatrix.run import guessing, qemu
from quizmatrix.run.channel import CHUNK, ConsolePipe, Port, write_all
from quizmatrix.run.ends import log_pipe, make_ends
from quizmatrix.run.headstart import HeadStart

# Seconds for QEMU to end by itself once its guest is gone.
END_GRACE = 5.0

# Bytes of QEMU's output that are kept: the beginning in its log, the end to explain the outcome. A guest can
# make QEMU print errors without end.
_LOG_LIMIT = 1 << 20
_LAST_WORDS = 500


class Log:
    """QEMU's own output: the beginning is written to a file, the end is kept in memory."""

    def __init__(self, path: Path, pair: tuple[int, int] | None = None) -> None:
        """QEMU inherits the writing end of a pipe. pair: its ends; by default those of a new one."""
        self.received = 0
        self._path = path
        self._end = b""
        self._kept = 0
        self._reader, self.writer = pair or log_pipe()

    async def pump(self) -> None:
        """Read until QEMU ends. OSError if the file cannot be written."""
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
        """The end of the output so far."""
        return self._end.decode(errors="replace").strip()

    @property
    def cut(self) -> str:
        """A sentence if the file lacks a part of the output; otherwise empty."""
        if self.received <= _LOG_LIMIT:
            return ""
        return f"{self._path.name} was {self.received} bytes long; the first {_LOG_LIMIT} are kept"

    def close_writer(self) -> None:
        """Close our copy of QEMU's end, so that we notice when QEMU ends."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def close(self) -> None:
        """Close both ends, if they are still open."""
        self.close_writer()
        os.close(self._reader)


class VM:
    """A running QEMU."""

    def __init__(self, child: process.Child, memory: int) -> None:
        """Made by `running`. memory: see there."""
        self._child = child
        # The file that the guest's memory is in, if it is to be saved; otherwise negative.
        self.memory = memory
        # Whether it did not die of SIGKILL, because it hangs in the kernel.
        self.outlived_kill = False

    @property
    def pid(self) -> int:
        """The pid of QEMU's process."""
        return self._child.pid

    async def ended(self) -> int:
        """Wait until QEMU ends; return its exit status, or the negative signal number."""
        return await self._child.wait()

    async def wait_for_status(self) -> int | None:
        """Wait END_GRACE seconds for QEMU to end by itself; its exit status, or None if it does not."""
        with anyio.move_on_after(END_GRACE):
            return await self.ended()
        return None

    async def kill(self) -> None:
        """Kill QEMU at once: a guest has no data that could be lost."""
        self.outlived_kill = not await process.kill(self._child)


class HostEnds(msgspec.Struct, frozen=True, kw_only=True):
    """The host's ends of what a QEMU is connected to. ports: by name.

    ahead: the QEMU's head start, if it had one.
    """

    console: ConsolePipe
    ports: dict[str, Port]
    log: Log
    ahead: HeadStart | None = None


@contextmanager
def host_ends(spec: CellSpec, shares: list[Share], memory: qemu.Memory | None) -> Iterator[HostEnds]:
    """The ends for the QEMU of `spec`, which are closed when the block ends. memory: see qemu.command_line.

    The QEMU itself, if it had a head start, is killed then.
    """
    names = qemu.ports_of(spec, with_qmp=memory is not None)
    ahead = guessing.take(spec, shares, memory)
    ends = ahead.ends if ahead is not None else make_ends(names)
    with ExitStack() as stack:
        if ahead is not None:
            stack.callback(ahead.child.kill)
        yield HostEnds(
            console=stack.enter_context(closing(ConsolePipe(ends.console))),
            ports={name: stack.enter_context(closing(Port(ends.ports[name]))) for name in names},
            log=stack.enter_context(closing(Log(Path(spec.files.folder) / "qemu.log", ends.log))),
            ahead=ahead,
        )


def require_qemu(spec: CellSpec) -> None:
    """Raises HostError with the package's name if QEMU for the cell's architecture is not installed."""
    process.require_program(spec.machine.arch.facts.qemu.binary, spec.machine.arch.facts.qemu.package)


@asynccontextmanager
async def running(
    spec: CellSpec, shares: list[Share], ends: HostEnds, memory: qemu.Memory | None = None
) -> AsyncIterator[VM]:
    """Start QEMU for `spec`, connected to `ends`; kill it when the block ends.

    memory: see qemu.command_line. Raises HostError if QEMU cannot be started.
    """
    require_qemu(spec)
    with ExitStack() as stack:
        file = -1
        if memory is not None and memory.template is None:
            file = stack.enter_context(_new_memory(spec.machine.memory))
            memory = qemu.Memory(passed_fd=file)
        if ends.ahead is not None:
            vm = VM(ends.ahead.child, file)
        else:
            vm = VM(await _started(spec, shares, ends, memory), file)
        try:
            ends.log.close_writer()
            ends.console.close_guest()
            for port in ends.ports.values():
                port.close_guest()
            yield vm
        finally:
            with anyio.CancelScope(shield=True):
                await vm.kill()


async def _started(
    spec: CellSpec, shares: list[Share], ends: HostEnds, memory: qemu.Memory | None
) -> process.Child:
    """Start QEMU; where that restores a guest, the next run may do so before it is asked to."""
    ports = {name: port.guest.fileno() for name, port in ends.ports.items()}
    passed = [ends.console.guest, *ports.values()]
    if memory is not None and memory.template is None:
        passed.append(memory.passed_fd)
    chardevs = qemu.chardevs_of(ports)
    argv = qemu.command_line(spec, shares, chardevs, passed_fd=ends.console.guest, memory=memory)
    child = await process.start(argv, pass_fds=passed, output=ends.log.writer)
    guessing.keep(spec, shares, memory)
    return child


@contextmanager
def _new_memory(size: int) -> Iterator[int]:
    """A file in memory, of `size` MiB. Raises HostError if there can be none."""
    try:
        file = os.memfd_create("guest")
    except OSError as error:
        raise host_error("make the guest's memory", error) from error
    try:
        os.truncate(file, size << 20)
        yield file
    finally:
        os.close(file)
