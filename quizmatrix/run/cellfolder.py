"""The folders inside the folder of one cell, and the files there that its guest reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def run_layer_of(folder: Path) -> Path:
    """The run layer."""
    return folder / "layer"


def own_files_of(folder: Path) -> Path:
    """The guest's /.quizmatrix, in the run layer."""
    return run_layer_of(folder) / ".quizmatrix"


def write_for_guest(path: Path, text: str) -> None:
    """Write a file that every user of the guest may read, whatever our umask is. Raises OSError."""
    # Words and paths need not be UTF-8; Python keeps such bytes as surrogates (PEP 383).
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    path.chmod(0o644)


def make_own_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Make the guest's /.quizmatrix with these files: lines by name. Raises OSError."""
    own = own_files_of(folder)
    own.mkdir()
    own.chmod(0o755)
    for name, text in texts.items():
        write_for_guest(own / name, text + "\n")


def host_folder_of(folder: Path) -> Path:
    """The files that the host halves of profiles need during the run; it is removed after the run."""
    return folder / "host"


def artifacts_of(folder: Path) -> Path:
    """The guest's /shared."""
    return folder / "artifacts"


def handed_disks_of(folder: Path) -> Path:
    """The disks that are handed from cell to cell."""
    return folder / "disks"
