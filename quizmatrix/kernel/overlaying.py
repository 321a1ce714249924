"""Lays layers over each other, as one folder of hard links that shows what overlayfs would show."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from quizmatrix.core import skeleton


def lay_over_each_other(layers: list[Path], into: Path) -> None:
    """Add what layers have to a folder; of the same name, the last layer's. Raises OSError."""
    for layer in layers:
        for entry in sorted(layer.iterdir()):
            _lay_over(entry, into / skeleton.guest_path_of_entry(entry))


def _lay_over(entry: Path, target: Path) -> None:
    """Add a layer's entry to the joined layer, as overlayfs would show it above the lower layers."""
    is_folder = entry.is_dir() and not entry.is_symlink()
    if target.is_symlink() or target.is_file() or (target.is_dir() and not is_folder):
        _remove(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not is_folder:
        _link(entry, target)
        return
    target.mkdir(exist_ok=True)
    # A layer may have folders that their owner cannot write to, and more files may have to go into them.
    target.chmod(entry.stat().st_mode & 0o7777 | 0o700)
    for below in os.scandir(entry):
        _lay_over(Path(below.path), target / below.name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target, follow_symlinks=False)
    except OSError:
        # It is on another file system, or has as many hard links as its file system allows.
        shutil.copy2(file, target, follow_symlinks=False)
