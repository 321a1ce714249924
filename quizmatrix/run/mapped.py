"""Turns the files of a guest's /shared, stored in QEMU's "mapped" form, into ordinary files.

With the mapped security model QEMU (its file system `local`) stores owners, modes and kinds of files beside
them. So the guest can have owners, symlinks, FIFOs and device nodes that the user who runs QEMU could not
create. On the host all of them are plain files, readable only by that user, until `unmap` converts them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from pathlib import Path

from quizmatrix.core import untrusted
from quizmatrix.core.text import clean_line
from quizmatrix.run.mappedroot import ATTRIBUTE, BESIDE_ROOT

# Without extended attributes, QEMU (hw/9pfs/9p-local.c) keeps one metadata file per file, in a folder that
# the guest does not see.
_BESIDE = ".virtfs_metadata"
_BESIDE_MODE = re.compile(rb"^virtfs\.mode=(\d+)$", re.MULTILINE)
_ATTRIBUTE_MODE = f"{ATTRIBUTE}mode"

# The largest length of a symlink's target (limits.h, PATH_MAX).
_LONGEST_TARGET = 4096


def unmap(root: Path) -> list[str]:
    """Convert the files below `root` to what the guest saw; return what was lost, a line each.

    The guest must have ended. Set-user-ID bits, devices, FIFOs and sockets are lost. Symlinks are created
    with their targets unchecked: untrusted.make_safe has to check them. `root` itself stays as `prepare` left
    it, for a user who boots the guest again by hand.
    """
    changed: list[str] = []
    folders = [str(root)]
    while folders:
        here = folders.pop()
        # make_safe removes folders that are too deep for a path.
        with contextlib.suppress(OSError):
            folders += _unmap_folder(str(root), here, changed)
    return changed


def _unmap_folder(root: str, folder: str, changed: list[str]) -> list[str]:
    """Convert the files in one folder; return its subfolders."""
    below = []
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if entry.name not in (_BESIDE, BESIDE_ROOT)]
    beside = Path(folder, _BESIDE)
    has_beside = beside.is_dir() and not beside.is_symlink()
    for entry in found:
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder:
            below.append(entry.path)
        elif not entry.is_file(follow_symlinks=False):
            continue
        mode = _mode_of(entry.path, beside / entry.name if has_beside else None)
        if mode is None:
            continue
        _forget_attributes(entry.path)
        if is_folder:
            Path(entry.path).chmod(mode & 0o777 | stat.S_IRWXU)
            continue
        lost = _unmap_file(Path(entry.path), mode)
        if lost:
            changed.append(f"{clean_line(os.path.relpath(entry.path, root))} {lost}")
    if has_beside:
        shutil.rmtree(beside, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        Path(folder, BESIDE_ROOT).unlink()
    return below


def _unmap_file(path: Path, mode: int) -> str:
    if stat.S_ISREG(mode):
        path.chmod(mode & 0o777)
        return "was set-user-ID" if mode & (stat.S_ISUID | stat.S_ISGID) else ""
    if stat.S_ISLNK(mode):
        with untrusted.open_regular(path) as file:
            target = file.read(_LONGEST_TARGET)
        path.unlink()
        path.symlink_to(os.fsdecode(target))
        return ""
    path.unlink()
    return "was not a regular file; removed"


def _mode_of(path: str, beside: Path | None) -> int | None:
    """The mode that QEMU has stored for a file; None if the guest did not create the file or set a mode."""
    if beside is not None:
        with contextlib.suppress(OSError), untrusted.open_regular(beside) as file:
            match = _BESIDE_MODE.search(file.read(_LONGEST_TARGET))
            return int(match[1]) if match else None
    try:
        return int.from_bytes(os.getxattr(path, _ATTRIBUTE_MODE, follow_symlinks=False), "little")
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
        return None


def _forget_attributes(path: str) -> None:
    with contextlib.suppress(OSError):
        for name in os.listxattr(path, follow_symlinks=False):
            if name.startswith(ATTRIBUTE):
                os.removexattr(path, name, follow_symlinks=False)
