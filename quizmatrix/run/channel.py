"""The host's side of the channel to a guest: control messages, stdout and stderr."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from io import FileIO
from pathlib import Path

import anyio
import anyio.lowlevel
import msgspec

from quizmatrix.core import pipes
from quizmatrix.run.ends import Pair, console_pipe, port_pair

CHUNK = 1 << 18

# Bytes of one output stream that are kept in its file, so that a command that writes without end does not
# fill the disk. Output that is passed on to the user's stdout has no limit.
OUTPUT_LIMIT = 1 << 30

# A full disk may soon have room again, because the guest that fills it is ended. Seconds until a write is
# given up, and seconds between two tries.
_FULL_DISK_PATIENCE = 10.0
_FULL_DISK_PAUSE = 0.2

# Bytes of the longest valid control message.
_LONGEST_MESSAGE = 65536


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message from a guest. `event` is one of these:

    booted: the guest waits for `start`.
    renewed: it has its own clock and randomness, as a guest of a template needs them.
    step: it begins the step that `message` names.
    started: the command has started.
    unread: nobody reads the command's stdin any more.
    packing: the command has ended, and the guest packs counters of lines; `exited` follows, as this.
    exited: the command has ended; `message` is the program's architecture if it is not the guest's.
    task: what one of its threads is doing, as it was asked (quizmatrix/run/hang.py).
    explained: there are no more of these.
    failed: init failed, for the reason in `message`.
    """

    event: str
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None


class InvalidMessageError(Exception):
    """The guest wrote something to the control port that is not a valid message."""


async def write_all(file: FileIO, data: bytes) -> None:
    """Write all of `data` to an unbuffered file; OSError if the disk stays full, or fails."""
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
    """The host's end of a socket pair; QEMU inherits the other end as a file descriptor."""

    def __init__(self, pair: Pair | None = None) -> None:
        """Both ends exist before QEMU starts: nobody waits for a connection, and no path is needed.

        pair: the ends; by default new ones.
        """
        self.host, self.guest = pair or port_pair()

    async def receive(self) -> bytes:
        """The next bytes; empty once QEMU is gone."""
        # Let other tasks run, even if a guest sends without a pause.
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                return self.host.recv(CHUNK)
            except BlockingIOError:
                await anyio.wait_readable(self.host)
            except ConnectionResetError:
                return b""

    async def send(self, data: bytes) -> None:
        """Write all of `data`; it is dropped if QEMU is gone."""
        view = memoryview(data)
        while view:
            try:
                view = view[self.host.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self.host)
            except (BrokenPipeError, ConnectionResetError):
                return

    def drop_received(self) -> None:
        """Drop what has been received and not read yet."""
        with contextlib.suppress(OSError):
            while self.host.recv(CHUNK):
                pass

    def end(self) -> None:
        """Send no more: the guest reads all that was sent, then end of file."""
        with contextlib.suppress(OSError):  # QEMU is gone
            self.host.shutdown(socket.SHUT_WR)

    def close_guest(self) -> None:
        """Close our copy of QEMU's end, so that we notice when QEMU ends."""
        self.guest.close()

    def close(self) -> None:
        """Close both ends, if they are still open."""
        self.guest.close()
        self.host.close()


class ConsolePipe:
    """The guest's console: a pipe; QEMU inherits the writing end.

    Not a socket: a console is written byte by byte, and a socket's buffer is full after a few
    hundred one-byte writes, while a pipe packs them.
    """

    def __init__(self, pair: tuple[int, int] | None = None) -> None:
        """Both ends exist before QEMU starts, as for a Port."""
        self._reader, self.guest = pair or console_pipe()
        self._guest_is_open = self.guest >= 0

    async def receive(self) -> bytes:
        """The next bytes; empty once QEMU is gone."""
        while True:
            try:
                return os.read(self._reader, CHUNK)
            except BlockingIOError:
                await anyio.wait_readable(self._reader)

    @property
    def waiting(self) -> int:
        """How many bytes can be received at once."""
        return pipes.waiting(self._reader)

    def close_guest(self) -> None:
        """Close our copy of QEMU's end, so that we notice when QEMU ends."""
        if self._guest_is_open:
            self._guest_is_open = False
            os.close(self.guest)

    def close(self) -> None:
        """Close both ends, if they are still open."""
        self.close_guest()
        os.close(self._reader)


class Control:
    """Messages of the control port, one JSON object per line."""

    def __init__(self, port: Port) -> None:
        """Reads and writes `port`."""
        self._port = port
        self._rest = b""

    async def receive(self) -> Message | None:
        """The next message; None once QEMU is gone. Raises InvalidMessageError for anything else."""
        while b"\n" not in self._rest:
            if len(self._rest) > _LONGEST_MESSAGE:
                raise InvalidMessageError(repr(self._rest[:80]))
            data = await self._port.receive()
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            # It may quote a user's file name, which need not be UTF-8.
            return msgspec.json.decode(line.decode(errors="replace"), type=Message)
        except msgspec.MsgspecError as error:
            raise InvalidMessageError(repr(line[:80])) from error

    async def send(self, message: bytes) -> None:
        """Send the guest a message: a line of JSON."""
        await self._port.send(message)


class Output:
    """An output stream of the command: written to a file, passed on, and ended by a marker.

    The host does not notice when a guest closes a port. So the guest ends the stream with a random marker
    that was made for this cell, and the stream is complete when the marker has arrived.
    """

    def __init__(
        self,
        port: Port,
        path: Path,
        marker: bytes,
        pass_on: Callable[[bytes], Awaitable[None]] | None,
    ) -> None:
        """pass_on: called with each piece of the stream."""
        self._port = port
        self._path = path
        self._marker = marker
        self._pass_on = pass_on
        self._held = b""
        self.ended = anyio.Event()
        self.received = 0
        self.kept = 0
        # Whether we wait for the reader that it is passed on to, such as a pager.
        self.is_passing_on = False

    async def pump(self) -> None:
        """Read the stream to its end, or until QEMU is gone. OSError if the file cannot be written."""
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
        """The bytes that can be passed on now: all except a tail that may be the marker's beginning."""
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
        """Whether the file lacks bytes of the stream."""
        return self.received > self.kept
