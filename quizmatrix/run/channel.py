"""The host's side of the channel to a guest: control messages, stdout and stderr."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Awaitable, Callable
from io import FileIO
from pathlib import Path

import anyio
import anyio.lowlevel
import msgspec

CHUNK = 1 << 18

# Bytes of a console that can wait for us; a serial port drops what finds no room.
_CONSOLE_ROOM = 1 << 18

# Bytes of one stream that are kept in its file. A command that writes without end must not fill
# the disk; what is passed on to the user's own stdout has no limit.
OUTPUT_LIMIT = 1 << 30

# A full disk may have room again soon, since the guest that fills it is ended. Seconds until a write is
# given up, and between two tries.
_FULL_DISK_PATIENCE = 10.0
_FULL_DISK_PAUSE = 0.2

# A control line longer than this is not one of ours.
_LONGEST_MESSAGE = 65536


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest says.

    booted; step: it begins with the one that `message` names; started: the command; unread: nobody reads the
    command's stdin any more; exited: the command's end, with `message` the architecture of a program that is
    not for this one; closed: a terminal session's end; failed: in init.
    """

    event: str
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None


class RubbishError(Exception):
    """The guest wrote something to the control port that is no message."""


async def write_all(file: FileIO, data: bytes) -> None:
    """Write all of `data` to a file that has no buffer; OSError where the disk stays full, or fails."""
    view = memoryview(data)
    latest = anyio.current_time() + _FULL_DISK_PATIENCE
    while view:
        try:
            view = view[file.write(view) or 0 :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or anyio.current_time() > latest:
                raise
            await anyio.sleep(_FULL_DISK_PAUSE)


class Port:
    """The host's end of one socket pair; QEMU gets the other as a file descriptor."""

    def __init__(self) -> None:
        """Both ends exist before QEMU does: there is nothing to wait for, and no name to find."""
        self.host, self.guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.host.setblocking(False)

    async def receive(self) -> bytes:
        """The next bytes; none once QEMU is gone."""
        # Other tasks get their turn, also where a guest sends without a pause.
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                return self.host.recv(CHUNK)
            except BlockingIOError:
                await anyio.wait_readable(self.host)
            except ConnectionResetError:
                return b""

    async def send(self, data: bytes) -> None:
        """Write all of `data`; what QEMU's end no longer takes is dropped."""
        view = memoryview(data)
        while view:
            try:
                view = view[self.host.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self.host)
            except (BrokenPipeError, ConnectionResetError):
                return

    def end(self) -> None:
        """Send no more: the guest reads what was sent, then its end."""
        with contextlib.suppress(OSError):  # QEMU is gone
            self.host.shutdown(socket.SHUT_WR)

    def close_guest(self) -> None:
        """Let QEMU have the only copy of its end, so that its death shows here."""
        self.guest.close()

    def close(self) -> None:
        """Close what is still open of both ends."""
        self.guest.close()
        self.host.close()


class ConsolePipe:
    """The guest's console: a pipe, of which QEMU gets the writing end.

    Not a socket: a console is written byte by byte, and a socket's buffer is full after a few
    hundred one-byte writes, while a pipe packs them.
    """

    def __init__(self) -> None:
        """Made before QEMU is, like every Port."""
        self._reader, self.guest = os.pipe()
        os.set_blocking(self._reader, False)
        # More than the default may be refused to a user who has many pipes.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.guest, fcntl.F_SETPIPE_SZ, _CONSOLE_ROOM)
        self._guest_is_open = True

    async def receive(self) -> bytes:
        """The next bytes; none once QEMU is gone."""
        while True:
            try:
                return os.read(self._reader, CHUNK)
            except BlockingIOError:
                await anyio.wait_readable(self._reader)

    def close_guest(self) -> None:
        """Let QEMU have the only copy of its end, so that its death shows here."""
        if self._guest_is_open:
            self._guest_is_open = False
            os.close(self.guest)

    def close(self) -> None:
        """Close what is still open of both ends."""
        self.close_guest()
        os.close(self._reader)


class Control:
    """Messages of the control port, one JSON object a line."""

    def __init__(self, port: Port) -> None:
        """Reads and writes `port`."""
        self._port = port
        self._rest = b""

    async def receive(self) -> Message | None:
        """The next message; None once QEMU is gone. Raises RubbishError for anything else."""
        while b"\n" not in self._rest:
            if len(self._rest) > _LONGEST_MESSAGE:
                raise RubbishError(repr(self._rest[:80]))
            data = await self._port.receive()
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            # It may quote a name of the user's, which need not be UTF-8.
            return msgspec.json.decode(line.decode(errors="replace"), type=Message)
        except msgspec.MsgspecError as error:
            raise RubbishError(repr(line[:80])) from error

    async def start(self) -> None:
        """Tell a booted guest to join its layers and run its command."""
        await self._port.send(b'{"op":"start"}\n')


class Output:
    """One stream of the command: kept in a file, passed on, and ended by a marker.

    A guest cannot close a port so that the host sees it. So the guest ends the stream with a
    marker that was made for this cell alone, and the stream is whole when that has come.
    """

    def __init__(
        self,
        port: Port,
        path: Path,
        marker: bytes,
        pass_on: Callable[[bytes], Awaitable[None]] | None,
    ) -> None:
        """`pass_on` is given every byte of the stream as it comes."""
        self._port = port
        self._path = path
        self._marker = marker
        self._pass_on = pass_on
        self._held = b""
        self.ended = anyio.Event()
        self.received = 0
        self.kept = 0
        # Whether we wait for whom it is passed on to: a pager, say.
        self.is_passing_on = False

    async def pump(self) -> None:
        """Read the stream to its end, or until QEMU is gone. OSError where it cannot be kept."""
        with self._path.open("wb", buffering=0) as file:
            while data := await self._port.receive():
                ready = self._without_marker(data)
                if ready:
                    await self._take(file, ready)
                if self.ended.is_set():
                    return
            await self._take(file, self._held)

    async def _take(self, file: FileIO, data: bytes) -> None:
        self.received += len(data)
        wanted = data[: OUTPUT_LIMIT - self.kept]
        self.kept += len(wanted)
        await write_all(file, wanted)
        if self._pass_on is not None and data:
            self.is_passing_on = True
            await self._pass_on(data)
            self.is_passing_on = False

    def _without_marker(self, data: bytes) -> bytes:
        """What can be passed on now: all but a tail that may be the marker's beginning."""
        data = self._held + data
        if data.endswith(self._marker):
            self._held = b""
            self.ended.set()
            return data[: -len(self._marker)]
        longest = min(len(data), len(self._marker) - 1)
        hold = next((n for n in range(longest, 0, -1) if self._marker.startswith(data[-n:])), 0)
        self._held = data[len(data) - hold :] if hold else b""
        return data[: len(data) - hold]

    @property
    def was_cut(self) -> bool:
        """Whether bytes were dropped from the file."""
        return self.received > self.kept
