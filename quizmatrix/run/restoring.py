"""Restores a guest from a template, and lets it renew itself. Imports little, as headstart does: no msgspec.

Waits for QEMU, so it is called in a thread. QMP is QEMU document interop/qmp-spec.rst.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

# QEMU's name for a file descriptor that it is given.
FILE = "file"

# Memory that QEMU shares with a file is not part of what it saves (QEMU document system/vm-templating.rst).
CAPABLE: dict[str, object] = {
    "capabilities": [{"capability": name, "state": True} for name in ("events", "x-ignore-shared")]
}

_Asked: TypeAlias = tuple[str, dict[str, object]]
_FIRST: tuple[_Asked, ...] = (("qmp_capabilities", {}), ("migrate-set-capabilities", CAPABLE))
# These come with the descriptor of the devices' state.
_WITH_STATE: tuple[_Asked, ...] = (("getfd", {"fdname": FILE}), ("migrate-incoming", {"uri": f"fd:{FILE}"}))

_JOIN = b'{"op":"join"}\n'

# Bytes of a guest's new seed.
_SEED = 32

# Seconds for QEMU to say something.
_SILENCE_LIMIT = 20.0
_READ = 1 << 16


def line(number: int, command: str, arguments: Mapping[str, object]) -> bytes:
    """A command of QMP. number: of the command, which QEMU's answer repeats."""
    asked = {"execute": command, "id": number, **({"arguments": arguments} if arguments else {})}
    return json.dumps(asked).encode() + b"\n"


def renewal() -> str:
    """What a guest with a template's clock and randomness gets of its own: a member of a JSON object.

    It is sent at once, as the time is in it.
    """
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f'"renew":"{seconds} {nanoseconds} {os.urandom(_SEED).hex()}"'


def restore(
    monitor: socket.socket,
    control: socket.socket,
    state: Path,
    on_ready: Callable[[], None] = lambda: None,
    *,
    joins: bool = False,
) -> str:
    """Restore the guest of a new QEMU, and let it renew itself; why that failed, or an empty text.

    monitor: QMP, on which nothing was said. control: the guest's port. state: of its devices. on_ready: is
    called once QEMU has all its devices, and so has opened the folders of its command line. joins: whether
    the guest is to join its layers at once. The guest then says that it is renewed, and waits for its start.
    """
    said = _said(monitor)
    try:
        monitor.sendall(_lines(1, _FIRST))
        with state.open("rb") as file:
            socket.send_fds(monitor, [_lines(1 + len(_FIRST), _WITH_STATE)], [file.fileno()])
        # It answers from its main loop, which comes after all devices.
        while "return" not in next(said):
            pass
        on_ready()
        while (status := _status_in(next(said))) != "completed":
            if status in ("failed", "cancelled"):
                return f"the guest was not restored: {status}"
        last = 1 + len(_FIRST) + len(_WITH_STATE)
        monitor.sendall(_lines(last, [("cont", {})]))
        control.sendall(f'{{"op":"renew",{renewal()}}}\n'.encode() + (_JOIN if joins else b""))
        # Else QEMU may take the end of the connection for that of the commands.
        while next(said).get("id") != last:
            pass
    # ValueError: what came is no answer of QEMU, or the socket was closed meanwhile.
    except (_FailedError, OSError, ValueError) as error:
        return str(error)
    return ""


class _FailedError(Exception):
    """QEMU has answered with an error, or does not answer."""


def _lines(first: int, asked: Sequence[_Asked]) -> bytes:
    return b"".join(line(number, *one) for number, one in enumerate(asked, first))


def _said(monitor: socket.socket) -> Iterator[dict[str, Any]]:
    """What QEMU says, without an end."""
    rest = b""
    poll = select.poll()
    poll.register(monitor, select.POLLIN)
    while True:
        if not poll.poll(1000 * _SILENCE_LIMIT):
            raise _FailedError("QEMU does not answer")
        data = monitor.recv(_READ)
        if not data:
            raise _FailedError("QEMU has ended")
        *lines, rest = (rest + data).split(b"\n")
        for said in map(json.loads, lines):
            if "error" in said:
                raise _FailedError(said["error"].get("desc", "QEMU answered with an error"))
            yield said


def _status_in(said: dict[str, Any]) -> object:
    """The state of the migration that an event tells; None if it is another one."""
    return said.get("data", {}).get("status") if said.get("event") == "MIGRATION" else None
