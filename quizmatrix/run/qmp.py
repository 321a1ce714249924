"""A client for QMP, QEMU's control protocol (QEMU document interop/qmp-spec.rst)."""

from __future__ import annotations

import socket
from typing import Any

import msgspec

from quizmatrix.run.channel import Port

# Compressed first; not all machines support it.
_FORMATS: tuple[dict[str, str], ...] = ({"format": "kdump-zlib"}, {})


class QmpError(Exception):
    """QEMU answered a command with an error."""


# QEMU's name for the file descriptor that it is given.
_CORE = "core"


async def dump_memory(port: Port, file: int) -> None:
    """Write the guest's memory to an open file, in a format for crash(8) and drgn; QmpError if QEMU fails.

    A descriptor, not a path: the guest might have created a file or symlink at the path.
    """
    lines = _Lines(port)
    await lines.next()  # the greeting
    await lines.ask("qmp_capabilities")
    failure: QmpError | None = None
    for chosen in _FORMATS:
        try:
            await lines.hand_over(file, _CORE)
            await lines.ask("dump-guest-memory", paging=False, protocol=f"fd:{_CORE}", **chosen)
        except QmpError as error:
            failure = error
        else:
            return
    raise failure or QmpError("it was not asked")


class _Lines:
    """Sends and receives JSON objects, one per line."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._rest = b""

    async def next(self) -> dict[str, Any]:
        while b"\n" not in self._rest:
            data = await self._port.receive()
            if not data:
                raise QmpError("QEMU has ended")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        said: dict[str, Any] = msgspec.json.decode(line)
        return said

    async def hand_over(self, file: int, name: str) -> None:
        """Send QEMU a duplicate of a file descriptor (QMP command getfd; unix(7), SCM_RIGHTS)."""
        asked = {"execute": "getfd", "arguments": {"fdname": name}}
        socket.send_fds(self._port.host, [msgspec.json.encode(asked) + b"\n"], [file])
        await self._answer("getfd")

    async def ask(self, command: str, **arguments: object) -> None:
        asked = {"execute": command, **({"arguments": arguments} if arguments else {})}
        await self._port.send(msgspec.json.encode(asked) + b"\n")
        await self._answer(command)

    async def _answer(self, command: str) -> None:
        while True:
            said = await self.next()
            if "error" in said:
                raise QmpError(said["error"].get("desc", command))
            if "return" in said:
                return
