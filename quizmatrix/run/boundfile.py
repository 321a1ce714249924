"""Shares single files with a guest: QEMU shares only folders, so each file is hard-linked into its own."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from quizmatrix.core.errors import HostError, host_error
from quizmatrix.model.spec import Bind, CellSpec, Share
from quizmatrix.run.cellfolder import host_folder_of

# The file's name in that folder (guest/init1).
NAME = "file"


def shares_of(spec: CellSpec) -> list[Share]:
    """A share for each bind of the specification; HostError if a file cannot be shared."""
    own = host_folder_of(Path(spec.files.folder))
    return [
        Share(
            tag=f"bind{number}",
            path=str(_folder_of(bind, own / f"bind{number}")) if bind.is_file else bind.path,
            writable=bind.writable,
        )
        for number, bind in enumerate(spec.files.binds)
    ]


def _folder_of(bind: Bind, folder: Path) -> Path:
    """A folder with only this file, as a hard link. If that is impossible, a read-only file is copied."""
    source = Path(bind.path)
    try:
        folder.mkdir(parents=True)
        try:
            os.link(source.resolve(), folder / NAME)
        except OSError as error:
            # Another file system, another user's file (fs.protected_hardlinks), or no support for hard links.
            if bind.writable:
                raise _no_link(bind, error) from error
            shutil.copy2(source, folder / NAME)
    except OSError as error:
        raise host_error(f"show {bind.path} to the guest", error) from error
    return folder


def _no_link(bind: Bind, error: OSError) -> HostError:
    apart = error.errno == errno.EXDEV
    return HostError(
        f"{bind.path} cannot be bound for writing",
        cause="it is on another file system than the run directory"
        if apart
        else error.strerror or str(error),
        next_step="Bind it read-only (`:ro`), bind its folder"
        + (", or take a run directory there (--output)." if apart else "."),
    )
