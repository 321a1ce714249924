"""Runs the host half of a profile: a program that prints what the guest gets, as one JSON object."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from quizmatrix.core import paths, process
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.model.arch import DiskBus
from quizmatrix.model.profile import HOST_HALF, Use

# The time limit of a host half, in seconds.
_SETUP_LIMIT = 600.0


class HostDisk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A disk that a host half made. The fields are those of spec.Disk."""

    serial: str
    path: str
    fails: Literal["", "read", "write"] = ""
    fails_at: int = 0
    bus: DiskBus = DiskBus.VIRTIO
    sector: int = 512
    zone: int = 0


class HostHalf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a host half prints.

    disks: disks for the guest. stopped: the machine waits for a debugger before it boots. user: the guest's
    user that runs the command, unless --user names one. environment: further variables for the guest half.
    files: the content of files, by their path below the guest's root.
    """

    disks: list[HostDisk] = []
    stopped: bool = False
    user: str | None = None
    environment: dict[str, str] = {}
    files: dict[str, str] = {}


async def set_up(use: Use, place: Path, *, cell: str, arch: str, folder: Path) -> HostHalf:
    """Run the host half of a profile for one cell, if it has one.

    place: the profile's folder. folder: where it may write; it belongs to this cell and is removed after the
    guest. Raises UnpreparedError, with the program's stderr, where it fails or prints something else;
    HostError where it exceeds its time limit.
    """
    program = place / HOST_HALF
    if not program.is_file():
        return HostHalf()
    environment = {
        **use.environment,
        "QUIZMATRIX_CELL": cell,
        "QUIZMATRIX_ARCH": arch,
        "QUIZMATRIX_FOLDER": str(folder),
        "QUIZMATRIX_STATE": str(paths.state_dir()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    argv = [str(program)] if os.access(program, os.X_OK) else ["sh", str(program)]
    done = await process.run(argv, cwd=folder, env=environment, limit=_SETUP_LIMIT)
    if done.status != 0:
        raise UnpreparedError(
            f"the host half of the profile {use.name} failed with {done.status}",
            cause=done.errors.decode(errors="replace").strip()[-400:],
            next_step=str(program),
        )
    try:
        return msgspec.json.decode(done.output, type=HostHalf)
    except msgspec.MsgspecError as error:
        raise UnpreparedError(
            f"the host half of the profile {use.name} printed something else than is known",
            cause=str(error),
            next_step=str(program),
        ) from error
