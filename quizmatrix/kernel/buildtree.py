"""Build trees: what external modules are built against, with the make(1) variables and programs for it.

The build tree of a kernel that was built here is its build folder. A ready-made kernel's is kept in TREES,
under the kernel's key: the headers that its distributor made for it, with their own build programs.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from quizmatrix.core import process
from quizmatrix.core.errors import DamagedError
from quizmatrix.core.store import Store

_RECORD = "tree.json"

TREES = Store(what="build tree", folder="trees", record=f"{{}}/{_RECORD}", lock="tree-{}")

# The release of the kernel that headers belong to.
_RELEASE = re.compile(r'^#define UTS_RELEASE "([^"]*)"$', re.MULTILINE)


class BuildTree(msgspec.Struct, frozen=True, kw_only=True):
    """What external modules of one kernel are built against.

    folder: for `make -C`. source: the folder with the kernel's source, or with as much of it as modules need.
    make: NAME=VALUE words for make(1): ARCH, CROSS_COMPILE, CC, ... tools: folders to put before PATH; none
    for a kernel that was built here. vmlinux: the kernel with its symbols. used: the artifacts of the cache
    that it is made of, which must not be removed while it is in use.
    """

    folder: Path
    source: Path
    make: list[str]
    tools: list[Path] = []
    vmlinux: Path | None = None
    used: list[Path] = []

    @property
    def variables(self) -> dict[str, str]:
        """The values of `make` by their names."""
        return dict(word.partition("=")[::2] for word in self.make)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which its programs are found."""
        if not self.tools:
            return {}
        return {"PATH": os.pathsep.join([*map(str, self.tools), os.environ.get("PATH", os.defpath)])}

    def require_program(self, name: str, package: str) -> str:
        """The path of one of its programs, or the host's. If it is missing, HostError names its package."""
        for folder in self.tools:
            if os.access(folder / name, os.X_OK):
                return str(folder / name)
        return process.require_program(name, package)


class TreeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a stored build tree (its tree.json). The fields are BuildTree's.

    toolchains: the keys of the compilers (TOOLCHAINS) that it needs. packages: where it came from.
    """

    folder: str
    source: str
    make: list[str]
    tools: list[str] = []
    vmlinux: str | None = None
    toolchains: list[str] = []
    packages: list[str] = []


def write_record(folder: Path, record: TreeRecord) -> None:
    """Write the record of the tree whose files are in `folder`."""
    (folder / _RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record)))


def records() -> list[TreeRecord]:
    """The records of all stored trees that can be read."""
    found = []
    for key in TREES.stored():
        try:
            found.append(TREES.read(key, TreeRecord))
        except DamagedError:
            continue
    return [record for record in found if record is not None]


def find(key: str) -> BuildTree | None:
    """The stored build tree of the kernel with this key; None where it, or a compiler that it needs, is gone.

    A damaged one counts as gone: it is made again.
    """
    try:
        record = TREES.read(key, TreeRecord)
    except DamagedError:
        return None
    if record is None or not all(map(os.path.isdir, (record.folder, record.source, *record.tools))):
        return None
    return BuildTree(
        folder=Path(record.folder),
        source=Path(record.source),
        make=record.make,
        tools=[Path(tool) for tool in record.tools],
        vmlinux=Path(record.vmlinux) if record.vmlinux else None,
        used=[TREES.path(key), *(Path(tool).parent for tool in record.tools)],
    )


def find_whole(key: str) -> BuildTree | None:
    """Like `find`; raises DamagedError where the tree is there, but incomplete, so that it is made again."""
    found = find(key)
    if found is None and TREES.path(key).exists():
        raise DamagedError(f"the build tree of {key} is incomplete")
    return found


def check_release(tree: Path, release: str) -> None:
    """Raise DamagedError where headers are of another kernel than `release`, or do not say of which."""
    try:
        match = _RELEASE.search((tree / "include/generated/utsrelease.h").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        match = None
    found = match[1] if match else "no kernel"
    if found != release:
        raise DamagedError(
            f"the headers in {tree} do not belong to the kernel {release}",
            cause=f"they are of {found}",
            next_step="Take the headers of the same release.",
        )
