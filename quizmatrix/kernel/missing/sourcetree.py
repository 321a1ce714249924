"""The source of a kernel: its own where it was built here, Debian's of the same series otherwise."""

from __future__ import annotations

import re
from pathlib import Path

from quizmatrix.core.errors import UnpreparedError
from quizmatrix.core.process import Tell
from quizmatrix.core.version import KernelVersion, leading_version, natural_key
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.missing.search import Source
from quizmatrix.kernel.tree import SOURCE_TREES
from quizmatrix.model.arch import load_arch


async def source_for(kernel: Kernel, tell: Tell, *, offline: bool) -> Source:
    """The source to be searched for what a kernel has. offline: fetch nothing.

    Raises UnpreparedError where it cannot be had.
    """
    tree = kernel.build_tree
    folder = tree.source if tree is not None and _is_whole(tree.source) else None
    if folder is None:
        series = KernelVersion(kernel.record.version).series
        folder = _unpacked(series) or await _fetched(series, tell, offline=offline)
    return Source(tree=folder, srcarch=_srcarch(folder, kernel))


def _is_whole(folder: Path) -> bool:
    return (folder / "Kconfig").is_file() and (folder / "kernel/fork.c").is_file()


def _unpacked(series: str) -> Path | None:
    """The newest source of a series that is unpacked already."""
    prefix = f"linux-source-{series}-"
    found = [path for path in SOURCE_TREES.root.glob(f"{prefix}*") if _is_whole(path)]
    return max(found, key=lambda path: _age(path.name.removeprefix(prefix)), default=None)


def _age(text: str) -> tuple[KernelVersion, object]:
    return leading_version(text) or KernelVersion("0.0"), natural_key(text)


async def _fetched(series: str, tell: Tell, *, offline: bool) -> Path:
    if offline:
        raise UnpreparedError(f"the source of {series} is not in the cache")
    from quizmatrix.kernel import debiansource

    tell(f"looking for what is missing in the source of {series}")
    return (await debiansource.source_tree(series, tell)).path


def _srcarch(tree: Path, kernel: Kernel) -> str:
    """The architecture's folder below arch/, as the top Makefile maps ARCH to it."""
    build_tree = kernel.build_tree
    given = build_tree.variables.get("ARCH") if build_tree else None
    arch = given or load_arch(kernel.record.arch).facts.build.make_arch
    makefile = (tree / "Makefile").read_text(encoding="utf-8", errors="replace")
    mapped = re.findall(r"ifeq \(\$\(ARCH\),\s*(\w+)\)\s*\n\s*SRCARCH\s*:=\s*(\w+)", makefile)
    return str(dict(mapped).get(arch, arch))
