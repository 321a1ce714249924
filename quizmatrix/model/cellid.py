"""Cell ids: written, parsed, matched by globs, and turned into the names of folders."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from quizmatrix.core.errors import DataError
from quizmatrix.model.arch import NATIVE, arch_names, real_name


def cell_id(kernel: str, arch: str, variant: str | None) -> str:
    """The id of a cell, as in --only and in the grid."""
    return f"{kernel}-{arch}" + (f"+{variant}" if variant else "")


def folder_name(cell: str) -> str:
    """The name of a cell's folder in a run directory: the id, with `_` for unusual characters."""
    return re.sub(r"[^\w.+@-]", "_", cell)


def check_folders(ids: list[str], where: str) -> None:
    """Raises DataError if two ids of a run would get the same folder."""
    folders: dict[str, str] = {}
    for one in ids:
        folder = folder_name(one)
        other = folders.setdefault(folder, one)
        if other != one:
            raise DataError(
                where,
                cause=f"{other} and {one} would have the same folder, {folder}",
                next_step="Run them one after the other.",
            )


def is_glob(text: str) -> bool:
    """Whether `text` is a glob, not a name."""
    return re.search(r"[*?\[]", text) is not None


def matching(names: Iterable[str], glob: str) -> list[str]:
    """The names that equal `glob` or match it."""
    return [name for name in names if name == glob or fnmatchcase(name, glob)]


_SHARD = re.compile(r"(.+)@([\d*?\[\]!-]+)of(\d+)")


def split_shard(pattern: str) -> tuple[str, int | None]:
    """A pattern without its `@NofM`, and M; the pattern and None if it has no `@NofM`."""
    match = _SHARD.fullmatch(pattern)
    return (match[1], int(match[3])) if match else (pattern, None)


_NATIVE = re.compile(rf"(?<=-){NATIVE}(?=$|[+@])")


def with_real_arch(pattern: str) -> str:
    """A cell id or glob, with `native` replaced by this host's architecture."""
    return _NATIVE.sub(lambda _: real_name(NATIVE), pattern)


def parse_cell_id(text: str) -> tuple[str, str, str | None] | None:
    """Kernel, architecture and variant of a cell id; None if `text` is not one (a glob is not)."""
    if is_glob(text):
        return None
    kernel, dash, rest = with_real_arch(text).rpartition("-")
    arch, _, variant = rest.partition("+")
    return (kernel, arch, variant or None) if kernel and dash and arch in arch_names() else None
