"""What is free on this host's disk, of which guests may not take the last."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

# What must stay free on this host's disk: bytes, or the share of a small disk.
_RESERVE = 256 << 20
_RESERVE_SHARE = 0.05


class FreeDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A file system of this host. free: bytes. reserve: bytes that must stay free. files: number of files."""

    free: int
    reserve: int
    files: int

    @property
    def is_short(self) -> bool:
        """Whether less is free than must stay free."""
        return self.free < self.reserve


def disk_of(folder: Path) -> FreeDisk:
    """The file system of a folder."""
    try:
        facts = os.statvfs(folder)
    except OSError:  # removed meanwhile; the cell ends for that anyway
        return FreeDisk(free=1, reserve=0, files=0)
    free, size = facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize
    reserve = min(_RESERVE, int(size * _RESERVE_SHARE))
    return FreeDisk(free=free, reserve=reserve, files=facts.f_files - facts.f_ffree)
