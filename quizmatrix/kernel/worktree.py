"""The kernel source `path`: a source tree of the user's, built beside it and never written to."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from quizmatrix.arch import Arch
from quizmatrix.errors import UnpreparedError
from quizmatrix.kernel import build
from quizmatrix.kernel.build import Options, Tree
from quizmatrix.process import Tell
from quizmatrix.version import KernelVersion

# What is no part of the source, and may change without changing the kernel.
_APART = frozenset({".git", ".svn", ".hg"})


def check(wanted: str) -> str:
    """The folder as it was written; ValueError where it is no kernel's source."""
    read_version(Path(wanted))
    return wanted


def read_version(tree: Path) -> KernelVersion:
    """The version that a source tree's Makefile gives it; ValueError where it is no kernel's source."""
    try:
        text = (tree / "Makefile").read_text(encoding="utf-8", errors="replace")[:4096]
    except OSError as error:
        raise ValueError(f"{tree} is no kernel source: {error.strerror}: Makefile") from error
    fields = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *= *(\S*)", text, re.MULTILINE))
    candidate = re.match(r"-rc\d+", fields.get("EXTRAVERSION", ""))
    patch = "" if candidate else f".{fields.get('SUBLEVEL') or 0}"
    try:
        return KernelVersion(
            f"{fields['VERSION']}.{fields['PATCHLEVEL']}{patch}{candidate.group() if candidate else ''}"
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"{tree} is no kernel source: its Makefile has no VERSION and PATCHLEVEL") from error


def recipe(wanted: str, arch: Arch) -> str:
    """Names all that a build depends on, the state of the tree among it."""
    return f"{build.recipe(wanted, arch)} {_state_of(Path(wanted))}"


async def fetch(wanted: str, arch: Arch, options: Options, tell: Tell) -> str:
    """Have a kernel of the tree in the cache; returns its key. Raises UnpreparedError where it fails."""
    path = Path(wanted).resolve()
    try:
        version = read_version(path)
    except ValueError as error:
        raise UnpreparedError(str(error)) from error
    # The same folder for every state of this tree: what did not change is not compiled again.
    place = hashlib.sha256(f"{path} {arch.name} {options!r}".encode()).hexdigest()[:16]
    tree = Tree(
        path=path,
        version=version,
        key=_state_of(path),
        origin=str(path),
        # make(1) takes no spaces.
        work=re.sub(r"[^\w.+-]", "_", f"{path.name}-{arch.name}-{place}"),
    )
    return await build.build(tree, arch, options, tell)


def _state_of(tree: Path) -> str:
    """Names the state of a tree by every file's path, size and time of change.

    Reading 80,000 files would take longer than the build of a small change.
    """
    digest = hashlib.sha256(str(tree.resolve()).encode())
    for top, folders, names in os.walk(tree):
        folders[:] = sorted(set(folders) - _APART)
        for name in sorted(names):
            try:
                now = os.lstat(f"{top}/{name}")
            except OSError:
                continue
            digest.update(f"{top}/{name}\0{now.st_size} {now.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]
