"""Properties of file systems: whether locks work, and whether the files are on a server (NFS and others)."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from quizmatrix.core import paths

_MOUNTS = Path("/proc/self/mountinfo")

# Types of file systems, as in mountinfo (proc(5)), that other hosts may have mounted at the same time.
_REMOTE = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "lustre",
        "gpfs",
        "beegfs",
        "orangefs",
        "ocfs2",
    }
    | {"gfs2", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.gpfs", "virtiofs"}
)


def has_locks(file: Path) -> bool:
    """Whether fcntl(2) can lock a file, as SQLite and QEMU do. If not, `paths.without_locks` reports it.

    Raises OSError if the file cannot be opened.
    """
    handle = os.open(file, os.O_RDONLY)
    try:
        # struct flock: type, whence, start, length, pid. An open file description lock: closing the file
        # does not release other locks of this process.
        fcntl.fcntl(handle, fcntl.F_OFD_GETLK, struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        paths.note_no_locks(file.parent, error)
        return False
    finally:
        os.close(handle)
    return True


def is_remote(path: Path, mounts: Path = _MOUNTS) -> bool:
    """Whether a file or folder is on a network file system, judged by the file system's type."""
    try:
        device = path.stat().st_dev
        lines = mounts.read_text().splitlines()
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    found = [line.partition(" - ")[2].split(" ")[0] for line in lines if line.split(" ")[2:3] == [number]]
    return any(kind in _REMOTE for kind in found)
