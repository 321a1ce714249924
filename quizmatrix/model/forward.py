"""Port forwards from the host to a guest (QEMU's hostfwd)."""

from __future__ import annotations

import re
import socket

import msgspec

from quizmatrix.core.errors import UnpreparedError

_HOME = "127.0.0.1"
_FORM = re.compile(r"(?:(?P<address>[\d.]+):)?(?P<port>\d{1,5})-(?P<to>\d{1,5})")


class Forward(msgspec.Struct, frozen=True, kw_only=True):
    """A TCP port forward. address, port: of the host; port 0 means any free one. to: the guest's port."""

    address: str = _HOME
    port: int
    to: int

    def __str__(self) -> str:
        """In the form that `parse` reads."""
        return f"{self.address}:{self.port}-{self.to}"

    @property
    def option(self) -> str:
        """The value for QEMU's hostfwd."""
        return f"tcp:{self.address}:{self.port}-:{self.to}"


def parse(text: str) -> list[Forward]:
    """Read `[ADDRESS:]PORT-PORT`, or several joined by `+`; ValueError if the text is malformed."""
    import ipaddress

    found: list[Forward] = []
    for word in text.split("+") if text else []:
        match = _FORM.fullmatch(word)
        if match is None or int(match["port"]) > 65535 or not 0 < int(match["to"]) <= 65535:
            raise ValueError(f"not [ADDRESS:]PORT-PORT, as in 127.0.0.1:2222-22: {word!r}")
        address = str(ipaddress.IPv4Address(match["address"] or _HOME))
        one = Forward(address=address, port=int(match["port"]), to=int(match["to"]))
        if one.port and (one.address, one.port) in [(other.address, other.port) for other in found]:
            raise ValueError(f"{address}:{one.port} cannot be forwarded to two ports of the guest")
        found.append(one)
    return found


def with_free_port(forward: Forward) -> Forward:
    """The forward with port 0 replaced by a free port; UnpreparedError if the named port is taken."""
    with socket.socket() as probe:
        # Like QEMU: connections of an earlier guest in TIME_WAIT do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((forward.address, forward.port))
        except OSError as error:
            raise UnpreparedError(
                f"the port {forward.address}:{forward.port} cannot be forwarded to the guest",
                cause=error.strerror or str(error),
                next_step=f"Name another port, or 0 for any free one: net:forward={forward.address}:0-"
                f"{forward.to}",
            ) from error
        return msgspec.structs.replace(forward, port=probe.getsockname()[1])
