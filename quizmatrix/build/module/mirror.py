"""Copies a module's source folder to the cache, where it is built; the folder itself is never written to.

A copy is needed because kernels before 6.13 build a module only beside its source. Each build updates the
copy and keeps make's output in it, so make compiles only what changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
from fnmatch import fnmatchcase
from pathlib import Path

from quizmatrix.core import checksum, paths, untrusted

# Files that kbuild leaves where a module was built in place. They must not be copied: make would take them
# for up to date, though they may be of another kernel.
_PRODUCTS = ("*.ko", "*.mod", "*.mod.c", ".*.cmd", ".*.o.d", "Module.symvers", "modules.order")

# Folders that are not part of the source.
LEFT_OUT = checksum.VERSION_CONTROL | {".tmp_versions"}

# The suffixes of files that are compiled to objects.
_COMPILED = frozenset({".c", ".S", ".rs"})

# A file's size, mtime in nanoseconds, and mode; empty: the copy of the file may be incomplete.
State = list[int]
_UNKNOWN: State = []


def scan(folder: Path) -> dict[str, State]:
    """The source files below `folder`, by their paths relative to it.

    Symlinks are followed: the copy gets the files that they point to. Raises OSError where a folder cannot be
    read.
    """
    found: dict[str, State] = {}
    todo: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while todo:
        below, above = todo.pop()
        here = (folder / below).stat()
        if (here.st_dev, here.st_ino) in above:
            continue  # a symlink to a folder above it
        with os.scandir(folder / below) as scanned:
            entries = list(scanned)
            names = {entry.name for entry in entries}
            for entry in entries:
                try:
                    now = entry.stat()
                except OSError:
                    continue  # a broken symlink, such as an editor's lock file
                path = f"{below}{entry.name}"
                if stat.S_ISDIR(now.st_mode) and entry.name not in LEFT_OUT:
                    todo.append((f"{path}/", above | {(here.st_dev, here.st_ino)}))
                elif stat.S_ISREG(now.st_mode) and not _is_product(entry.name, names):
                    found[path] = [now.st_size, now.st_mtime_ns, now.st_mode]
    return found


def _is_product(name: str, beside: set[str]) -> bool:
    """Whether kbuild has made a file. beside: the names in its folder."""
    if name.endswith(".o"):
        # One without kbuild's notes is part of the source, as drivers with closed parts have it.
        return f".{name}.cmd" in beside
    return any(fnmatchcase(name, pattern) for pattern in _PRODUCTS)


def name_of(files: dict[str, State]) -> str:
    """A hash that names the state of a source."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def follow(folder: Path, files: dict[str, State], copy: Path) -> None:
    """Update `copy`: copy changed files from `folder`, and remove files that are gone there.

    Files of make in `copy` stay. A copied file gets the current mtime, not the original's, so that it is
    newer than its object even if it was replaced by an older file. If this is interrupted, the next call
    completes it. Raises OSError where a file cannot be read or written.
    """
    copy.mkdir(parents=True, exist_ok=True)
    known = _known(copy)
    before = _read(known)
    changed = {path: state for path, state in files.items() if before.get(path) != state}
    gone = before.keys() - files.keys()
    if not changed and not gone:
        return
    paths.write_atomic(known, json.dumps(before | dict.fromkeys([*changed, *gone], _UNKNOWN)).encode())
    for path in sorted(gone):
        _remove(copy, path)
    for path in sorted(changed):
        target = copy / path
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copyfile(folder / path, target)
        target.chmod(0o644 | (files[path][2] & 0o111))
        if target.suffix == ".o":
            # Where there is a source, too, kbuild shall not take this for what it made of that.
            target.with_name(f".{target.name}.cmd").unlink(missing_ok=True)
    paths.write_atomic(known, json.dumps(files).encode())


def copy_afresh(folder: Path, files: dict[str, State], copy: Path) -> None:
    """Make `copy` a copy of `folder` and of nothing else, with the mtimes of its files.

    For builds that are no plain kbuild: what they left would not be known from the source. Raises OSError.
    """
    _known(copy).unlink(missing_ok=True)
    if copy.is_symlink():
        copy.unlink()
    elif copy.exists():
        # What was built there may have left folders that nobody may enter, or that are too deep for a path.
        untrusted.remove_tree(copy)
    copy.mkdir(parents=True)
    for path in files:
        target = copy / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, target)
        target.chmod(0o644 | (files[path][2] & 0o111))
        os.utime(target, ns=(files[path][1], files[path][1]))


def _known(copy: Path) -> Path:
    """The file that says what `copy` was copied from."""
    return copy.with_name(f"{copy.name}.mirror")


def _read(known: Path) -> dict[str, State]:
    try:
        found = json.loads(known.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remove(copy: Path, path: str) -> None:
    target = copy / path
    with contextlib.suppress(NotADirectoryError):
        target.unlink(missing_ok=True)
        if target.suffix in _COMPILED:
            # If the source of an object is gone, kbuild takes the object for up to date.
            target.with_suffix(".o").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for parent in target.parents:
            if parent == copy:
                break
            parent.rmdir()
