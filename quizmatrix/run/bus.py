"""Assigns slots on a guest's bus to its devices, and checks that they fit."""

from __future__ import annotations

from quizmatrix.core.errors import UnpreparedError
from quizmatrix.model.arch import Qemu

# The largest number of devices of a guest, on every architecture.
ROOM = 64


class Bus:
    """Assigns slots to the devices of one guest, in order."""

    def __init__(self, qemu: Qemu, devices: int) -> None:
        """devices: how many there will be."""
        slots = qemu.slots
        # QEMU chooses the slots unless there are too many devices: the slots of usual guests do not change.
        self._slots = slots if slots is not None and devices > slots.count else None
        self._devices = devices
        self._placed = 0

    def next(self) -> str:
        """The -device properties for the slot of the next device; empty if QEMU chooses it."""
        number, self._placed = self._placed, self._placed + 1
        if self._slots is None:
            return ""
        function, slot = divmod(number, self._slots.count)
        shares = function == 0 and self._devices > number + self._slots.count
        return f",addr={self._slots.first + slot:#x}.{function}" + (",multifunction=on" if shares else "")


def check_room(cell: str, *, folders: int, disks: int, others: int) -> None:
    """Raises UnpreparedError if a guest would have too many devices."""
    total = folders + disks + others
    if total > ROOM:
        raise UnpreparedError(
            f"{cell} would have {total} devices, and a guest has room for {ROOM}",
            cause=f"{disks} disks, {folders} folders (layers, the current folder, --bind), {others} more",
            next_step="Take fewer disks or --bind; one --bind of a folder shows all folders in it.",
        )
