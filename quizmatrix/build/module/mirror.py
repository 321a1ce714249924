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

from quizmatrix.core import checksum, paths

# What kbuild leaves where a module was built in place: taken along, it would stand for what is not built
# yet, or was built for another kernel.
_PRODUCTS = ("*.o", "*.ko", "*.mod", "*.mod.c", ".*.cmd", ".*.o.d", "Module.symvers", "modules.order")

# Folders that are no part of a source.
_LEFT_OUT = checksum.VERSION_CONTROL | {".tmp_versions"}

# What an object is compiled from.
_COMPILED = frozenset({".c", ".S", ".rs"})

# A file's size, mtime in nanoseconds, and mode; none: what the copy holds is not known.
State = list[int]
_UNKNOWN: State = []


def scan(folder: Path) -> dict[str, State]:
    """The files below `folder` that belong to a source, by their paths below it.

    Links are followed: what they lead to is taken along as what it is. OSError where a folder cannot be read.
    """
    found: dict[str, State] = {}
    todo: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while todo:
        below, above = todo.pop()
        here = (folder / below).stat()
        if (here.st_dev, here.st_ino) in above:
            continue  # a link to a folder that it lies in
        with os.scandir(folder / below) as entries:
            for entry in entries:
                try:
                    now = entry.stat()
                except OSError:
                    continue  # a link to nothing, such as an editor's lock
                path = f"{below}{entry.name}"
                if stat.S_ISDIR(now.st_mode) and entry.name not in _LEFT_OUT:
                    todo.append((f"{path}/", above | {(here.st_dev, here.st_ino)}))
                elif stat.S_ISREG(now.st_mode) and not _is_product(entry.name):
                    found[path] = [now.st_size, now.st_mtime_ns, now.st_mode]
    return found


def _is_product(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _PRODUCTS)


def name_of(files: dict[str, State]) -> str:
    """Names the state of a source."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def follow(folder: Path, files: dict[str, State], copy: Path) -> None:
    """Have `copy` hold these files of `folder`, and of what it had before only what is none of them.

    What is changed here has the time of now, not the original's: a file that is replaced by an older one is
    newer than what was compiled from it. Interrupted anywhere, the next time ends it. OSError where a file
    cannot be read, or the disk does not take it.
    """
    copy.mkdir(parents=True, exist_ok=True)
    known = copy.with_name(f"{copy.name}.mirror")
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
    paths.write_atomic(known, json.dumps(files).encode())


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
            # kbuild takes an object whose source is gone for up to date.
            target.with_suffix(".o").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for parent in target.parents:
            if parent == copy:
                break
            parent.rmdir()
