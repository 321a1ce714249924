"""The folders, symlinks and device nodes that every guest's root file system has.

They are part of the initramfs. The folders and symlinks form a layer above all others except the guest's
own writes. So no user layer can hide a symlink of a merged /usr or change the owner of the root's folders.
"""

from __future__ import annotations

import re
from pathlib import Path

from quizmatrix.core import cpio

# Symlinks of a merged /usr. Files that a layer has in one of these folders belong into /usr/NAME.
MERGED = ("bin", "sbin", "lib", "lib64")

_LAYER = "layers/skeleton"
_FOLDERS = {
    "etc": 0o755,
    "opt": 0o755,
    "root": 0o700,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/local": 0o755,
    "usr/share": 0o755,
    "var": 0o755,
    **{f"usr/{name}": 0o755 for name in MERGED},
}

_NODES = "guest/nodes"
# kmod's modules.devname: the module, the node below /dev, its type and numbers.
_NODE = re.compile(r"\S+ ((?:[\w-]+/)*[\w-]+) ([cb])(\d+):(\d+)")
# udev's rules open these to everybody (50-udev-default.rules).
_FOR_ALL = ("fuse", "net/tun")


def layer() -> bytes:
    """The layer of folders and symlinks, as part of an initramfs that has /layers."""
    parts = [cpio.directory(_LAYER)]
    parts += [cpio.directory(f"{_LAYER}/{name}", mode) for name, mode in _FOLDERS.items()]
    parts += [cpio.symlink(f"{_LAYER}/{name}", f"usr/{name}") for name in MERGED]
    # Relative: init1 makes mount points for binds before this becomes the root.
    parts.append(cpio.symlink(f"{_LAYER}/var/run", "../run"))
    return b"".join(parts)


def nodes(devname: str) -> bytes:
    """The device nodes that a kernel's modules.devname lists; opening one loads its module.

    devname: the text of that file.
    """
    found = [match.groups() for line in devname.splitlines() if (match := _NODE.fullmatch(line.strip()))]
    folders = {_NODES: None}
    parts = []
    for name, kind, major, minor in found:
        parents = name.split("/")[:-1]
        for depth in range(len(parents)):
            folders[f"{_NODES}/{'/'.join(parents[: depth + 1])}"] = None
        mode = 0o666 if name in _FOR_ALL else 0o600
        make = cpio.char_device if kind == "c" else cpio.block_device
        parts.append(make(f"{_NODES}/{name}", int(major), int(minor), mode))
    return b"".join([*map(cpio.directory, folders), *parts]) if parts else b""


def guest_path(name: str) -> str:
    """The path of a layer's file `name` in a guest with a merged /usr: `lib/x` -> `usr/lib/x`."""
    clean = name.lstrip("/")
    return f"usr/{clean}" if clean.split("/", 1)[0] in MERGED else clean


def guest_path_of_entry(path: Path) -> str:
    """Like guest_path, for an entry at a layer's top: only real folders move, symlinks stay."""
    return guest_path(path.name) if path.is_dir() and not path.is_symlink() else path.name
