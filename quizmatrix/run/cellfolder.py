"""The paths of the folders inside the folder of one cell."""

from __future__ import annotations

from pathlib import Path


def run_layer_of(folder: Path) -> Path:
    """The run layer."""
    return folder / "layer"


def host_folder_of(folder: Path) -> Path:
    """The files that the host halves of profiles need during the run; it is removed after the run."""
    return folder / "host"


def artifacts_of(folder: Path) -> Path:
    """The guest's /shared."""
    return folder / "artifacts"


def handed_disks_of(folder: Path) -> Path:
    """The disks that are handed from cell to cell."""
    return folder / "disks"
