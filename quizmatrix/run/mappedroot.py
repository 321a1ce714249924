"""How the guest's /shared is stored, and what its root looks like. Imports little, as headstart does."""

from __future__ import annotations

import os
import stat
from enum import StrEnum
from pathlib import Path

# With extended attributes: 32-bit values, little-endian.
ATTRIBUTE = "user.virtfs."
# Without them, QEMU (hw/9pfs/9p-local.c) keeps one metadata file per file, and this one for the root.
BESIDE_ROOT = ".virtfs_metadata_root"

# A directory that everybody may write to.
_ROOT_MODE = stat.S_IFDIR | 0o777


class Model(StrEnum):
    """A value of QEMU's option security_model."""

    NONE = "none"
    XATTR = "mapped-xattr"
    FILE = "mapped-file"


def prepare(folder: Path) -> Model:
    """Make `folder` appear to the guest as owned by root and writable for everybody; return the model.

    The model is mapped-file if the file system has no extended attributes. The guest reads that when it
    mounts the folder. To do it twice is no harm.
    """
    facts = {"uid": 0, "gid": 0, "mode": _ROOT_MODE}
    try:
        for name, value in facts.items():
            os.setxattr(folder, f"{ATTRIBUTE}{name}", value.to_bytes(4, "little"))
    except OSError:
        lines = (f"virtfs.{name}={value}\n" for name, value in facts.items())
        (folder / BESIDE_ROOT).write_text("".join(lines))
        return Model.FILE
    return Model.XATTR
