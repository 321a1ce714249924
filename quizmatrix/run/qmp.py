"""A client for QMP, QEMU's control protocol (QEMU document interop/qmp-spec.rst)."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Mapping
from typing import Any

import anyio
import msgspec

from quizmatrix.run import restoring
from quizmatrix.run.channel import Port

# Compressed first; not all machines support it.
_FORMATS: tuple[dict[str, str], ...] = ({"format": "kdump-zlib"}, {})

# Seconds between two looks at QEMU's state.
_PAUSE = 0.002


class QmpError(Exception):
    """QEMU answered a command with an error, or has ended."""


class Monitor:
    """The control channel of one QEMU."""

    def __init__(self, port: Port) -> None:
        """Sends nothing."""
        self._port = port
        self._rest = b""
        self._is_greeted = self._is_open = False
        self._asked = 0
        self._events: deque[dict[str, Any]] = deque()

    async def open(self) -> None:
        """Take the greeting, and begin to send commands, unless that was done. QmpError if QEMU ends."""
        if not self._is_open:
            if not self._is_greeted:
                await self._next()
                self._is_greeted = True
            await self.ask("qmp_capabilities")
            self._is_open = True

    async def dump_memory(self, file: int) -> None:
        """Write the guest's memory to an open file, in a format for crash(8) and drgn; QmpError if it fails.

        A descriptor, not a path: the guest might have created a file or symlink at the path.
        """
        failure: QmpError | None = None
        for chosen in _FORMATS:
            try:
                await self._hand_over(file)
                await self.ask("dump-guest-memory", paging=False, protocol=f"fd:{restoring.FILE}", **chosen)
            except QmpError as error:
                failure = error
            else:
                return
        raise failure or QmpError("it was not asked")

    async def has_property(self, kind: str, name: str) -> bool:
        """Whether objects of a kind have a property of this name. QmpError if QEMU fails."""
        listed = await self.ask("qom-list-properties", typename=kind)
        return any(one["name"] == name for one in listed)

    async def cpu_threads(self) -> list[int]:
        """The ids of the threads that run the guest's CPUs. QmpError if QEMU fails."""
        return [cpu["thread-id"] for cpu in await self.ask("query-cpus-fast")]

    async def stop(self) -> None:
        """Stop the guest. QmpError if QEMU fails."""
        await self.ask("stop")

    async def go_on(self) -> None:
        """Let a stopped guest go on. QmpError if QEMU fails."""
        # QEMU says that it has saved the guest a moment before it can go on.
        while (await self.ask("query-status"))["status"] == "finish-migrate":  # noqa: ASYNC110 - no event
            await anyio.sleep(_PAUSE)
        await self.ask("cont")

    async def save(self, file: int) -> None:
        """Write the state of the stopped guest's devices to an open file. QmpError if a device has none."""
        await self.ask("migrate-set-capabilities", **restoring.CAPABLE)
        await self._hand_over(file)
        await self.ask("migrate", uri=f"fd:{restoring.FILE}")
        while (status := await self._event("MIGRATION")).get("status") != "completed":
            if status.get("status") in ("failed", "cancelled"):
                said = await self.ask("query-migrate")
                raise QmpError(said.get("error-desc", f"migrate {status['status']}"))

    async def _event(self, name: str) -> dict[str, Any]:
        """The data of the next event of this name."""
        while True:
            said = self._events.popleft() if self._events else await self._next()
            if said.get("event") == name:
                data: dict[str, Any] = said.get("data", {})
                return data

    async def _next(self) -> dict[str, Any]:
        while b"\n" not in self._rest:
            data = await self._port.receive()
            if not data:
                raise QmpError("QEMU has ended")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        said: dict[str, Any] = msgspec.json.decode(line)
        return said

    async def _hand_over(self, file: int) -> None:
        """Send QEMU a duplicate of a file descriptor (QMP command getfd; unix(7), SCM_RIGHTS)."""
        socket.send_fds(self._port.host, [self._line("getfd", {"fdname": restoring.FILE})], [file])
        await self._answer("getfd")

    async def ask(self, command: str, **arguments: object) -> Any:
        """What QEMU answers to a command. QmpError if that is an error."""
        await self._port.send(self._line(command, arguments))
        return await self._answer(command)

    def _line(self, command: str, arguments: Mapping[str, object]) -> bytes:
        """The next command, with its number."""
        self._asked += 1
        return restoring.line(self._asked, command, arguments)

    async def _answer(self, command: str) -> Any:
        while True:
            said = await self._next()
            # Of a command for whose answer we did not wait, it comes before this one's.
            is_mine = said.get("id", self._asked) == self._asked
            if "error" in said and is_mine:
                raise QmpError(said["error"].get("desc", command))
            if "return" in said and is_mine:
                return said["return"]
            if "event" in said:
                self._events.append(said)
