"""The disks that cells hand on, made on the host of the cell that gets them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from quizmatrix.core.errors import DamagedError, host_error
from quizmatrix.core.store import path_of
from quizmatrix.hosts.messages import SentDisk
from quizmatrix.model.spec import HANDED_DISK, Disk
from quizmatrix.run import handeddisks
from quizmatrix.run.cellfolder import handed_disks_of

_SERIAL = re.compile(rf"{HANDED_DISK}\d+", re.ASCII)


async def made(asked: Sequence[SentDisk], folder: Path) -> list[Disk]:
    """The disks, made in a cell's folder. Raises HostError where they cannot be written."""
    if not asked:
        return []
    place = handed_disks_of(folder)
    try:
        place.mkdir()
        return [await _made(one, place) for one in asked]
    except OSError as error:
        raise host_error(f"write to {place}", error) from error


async def _made(asked: SentDisk, place: Path) -> Disk:
    if not _SERIAL.fullmatch(asked.serial):
        raise DamagedError(f"an order names a disk {asked.serial!r}")
    path = place / asked.serial
    if not asked.content:
        handeddisks.make_empty(path, asked.size)
    else:
        await handeddisks.copy([str(path_of(asked.place))], path, fact=f"cannot copy a disk to {path}")
    return Disk(serial=asked.serial, path=str(path))


def placed(asked: Sequence[SentDisk], places: dict[str, str]) -> list[SentDisk]:
    """The disks with where their contents are on this host. places: by the name of the listing."""
    return [msgspec.structs.replace(one, place=places.get(one.content, "")) for one in asked]
