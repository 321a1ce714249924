"""The paths of the folders inside the folder of one cell."""

from __future__ import annotations

from pathlib import Path


def run_layer_of(folder: Path) -> Path:
    """The run layer's place in a cell's folder."""
    return folder / "layer"


def host_folder_of(folder: Path) -> Path:
    """Where the host halves of profiles keep files of this run, in a cell's folder; gone after it."""
    return folder / "host"


def artifacts_of(folder: Path) -> Path:
    """The guest's /shared in a cell's folder."""
    return folder / "artifacts"
