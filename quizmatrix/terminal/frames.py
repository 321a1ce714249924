"""What the host and a guest's session say to each other over their port: see guest/programs/terminal.h."""

from __future__ import annotations

import struct
from enum import StrEnum

import anyio

from quizmatrix.run.channel import Port

# A letter, and the length of what follows.
_HEAD = struct.Struct(">cH")
_WINDOW = struct.Struct(">HH")
_LONGEST = (1 << 16) - 1
# Of what is typed at once: a window's new size waits behind it.
_PIECE = 1 << 12


class FrameKind(StrEnum):
    """What a guest's frame holds."""

    OUTPUT = "o"
    ERRORS = "e"
    STATUS = "x"


class Frames:
    """The host's side of the port."""

    def __init__(self, port: Port) -> None:
        """Sends nothing yet."""
        self._port = port
        self._rest = b""
        # Frames of several tasks must not mix.
        self._sending = anyio.Lock()

    async def type(self, data: bytes) -> None:
        """Send what the person has typed."""
        for start in range(0, len(data), _PIECE):
            await self._send(b"i", data[start : start + _PIECE])

    async def end_typing(self) -> None:
        """Tell that nothing more is typed."""
        await self._send(b"i", b"")

    async def resize(self, window: tuple[int, int] | None) -> None:
        """Tell the window's columns and rows; None where there is no terminal."""
        columns, rows = window or (0, 0)
        await self._send(b"w", _WINDOW.pack(min(rows, _LONGEST), min(columns, _LONGEST)))

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
        kind, end = self._rest[:1], _HEAD.size + self._size()
        content, self._rest = self._rest[_HEAD.size : end], self._rest[end:]
        try:
            return FrameKind(kind.decode(errors="replace")), content
        except ValueError:
            return None

    def _size(self) -> int:
        size: int = _HEAD.unpack_from(self._rest)[1]
        return size
