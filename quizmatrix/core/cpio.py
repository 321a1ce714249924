"""Writes cpio archives for an initramfs, in the "newc" format; root is not needed.

The format is described in the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. The
entries made here have no trailer; `join` concatenates them and adds it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


def _entry(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    raw = name.encode() + b"\0"
    # inode 0 with a link count of 1: the kernel looks for hard links only if the count is 2 or more.
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(raw), 0)
    head = _MAGIC + b"".join(b"%08X" % number for number in numbers) + raw
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def directory(name: str, mode: int = 0o755) -> bytes:
    """A folder. Its parents must come before it in the archive."""
    return _entry(name, stat.S_IFDIR | mode)


def file(name: str, data: bytes, mode: int = 0o644) -> bytes:
    """A regular file."""
    return _entry(name, stat.S_IFREG | mode, data)


def symlink(name: str, target: str) -> bytes:
    """A symbolic link."""
    return _entry(name, stat.S_IFLNK | 0o777, target.encode())


def char_device(name: str, major: int, minor: int, mode: int = 0o600) -> bytes:
    """A character device node."""
    return _entry(name, stat.S_IFCHR | mode, device=(major, minor))


def block_device(name: str, major: int, minor: int, mode: int = 0o600) -> bytes:
    """A block device node."""
    return _entry(name, stat.S_IFBLK | mode, device=(major, minor))


def fifo(name: str) -> bytes:
    """A named pipe."""
    return _entry(name, stat.S_IFIFO | 0o600)


def join(parts: Iterable[bytes]) -> bytes:
    """One archive of the parts, in order, with the trailer that the kernel expects."""
    return b"".join(parts) + _entry(_TRAILER, 0)
