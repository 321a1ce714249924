"""What the host and a guest's session say to each other over their port: see guest/programs/terminal.h."""

from __future__ import annotations

import struct
from enum import StrEnum

import anyio

from quizmatrix.run.channel import Port

# A letter, and the length of what follows.
_HEAD = struct.Struct(">cH")
_NUMBER, _TWO_NUMBERS = struct.Struct(">H"), struct.Struct(">HH")
_LONGEST = (1 << 16) - 1
# Bytes that are typed at once, and those that the guest has room for.
_PIECE, _ROOM = 1 << 12, 1 << 16


class FrameKind(StrEnum):
    """What a guest's frame holds, or says."""

    RUNNING = "t"
    OUTPUT = "o"
    ERRORS = "e"
    TAKEN = "a"
    BESIDE_ENDED = "b"
    STATUS = "x"


class Frames:
    """The host's side of the port."""

    def __init__(self, port: Port) -> None:
        """Sends nothing yet."""
        self._port = port
        self._rest = b""
        # Frames of several tasks must not mix.
        self._sending = anyio.Lock()
        # What the guest has room for of what is typed, and whether that has changed.
        self._room = _ROOM
        self._has_taken = anyio.Event()

    async def type(self, data: bytes) -> None:
        """Send what the person has typed, once the guest has room for it."""
        while data:
            while not self._room:
                self._has_taken = anyio.Event()
                await self._has_taken.wait()
            piece = data[: min(_PIECE, self._room)]
            self._room -= len(piece)
            await self._send(b"i", piece)
            data = data[len(piece) :]

    async def end_typing(self) -> None:
        """Tell that nothing more is typed."""
        await self._send(b"i", b"")

    async def resize(self, window: tuple[int, int]) -> None:
        """Tell the window's columns and rows."""
        columns, rows = window
        await self._send(b"w", _TWO_NUMBERS.pack(min(rows, _LONGEST), min(columns, _LONGEST)))

    async def close(self, kind: FrameKind) -> None:
        """Tell that nobody reads the session's OUTPUT, or its ERRORS, any more."""
        await self._send(b"c", b"\0" if kind is FrameKind.OUTPUT else b"\1")

    async def run_beside(self, script: str) -> None:
        """Have the guest run a shell script beside the session."""
        await self._send(b"s", script.encode())

    async def _send(self, kind: bytes, data: bytes) -> None:
        async with self._sending:
            await self._port.send(_HEAD.pack(kind, len(data)) + data)

    async def receive(self) -> tuple[FrameKind, bytes] | None:
        """The guest's next frame; None where QEMU is gone, or where the guest sent something else."""
        while len(self._rest) < _HEAD.size or len(self._rest) < _HEAD.size + self._size():
            data = await self._port.receive()
            if not data:
                return None
            self._rest += data
        letter, end = self._rest[:1], _HEAD.size + self._size()
        content, self._rest = self._rest[_HEAD.size : end], self._rest[end:]
        try:
            kind = FrameKind(letter.decode(errors="replace"))
            if kind is FrameKind.TAKEN:
                self._room = min(_ROOM, self._room + _NUMBER.unpack(content)[0])
                self._has_taken.set()
        except (ValueError, struct.error):
            return None
        return kind, content

    def _size(self) -> int:
        size: int = _HEAD.unpack_from(self._rest)[1]
        return size
